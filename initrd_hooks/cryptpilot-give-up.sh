#!/bin/sh
# In an initrd without systemd: gives up at once when the agent says that this boot cannot go on. Whoever leaves the
# shell that dracut may open then has it tried again.

if [ -e /run/cryptpilot/initrd.ended ] && [ -e /run/cryptpilot/stop-boot ]; then
    rm -f /run/cryptpilot/initrd.ended
    emergency_shell "cryptpilot: a volume that this boot cannot do without is not open; the reason is above"
    rm -f /run/cryptpilot/stop-boot
    /usr/bin/cryptpilot-initrd &
fi

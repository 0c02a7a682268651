#!/bin/sh
# In an initrd without systemd: gives up at once when the agent says that this boot cannot go on. dracut may then open a
# shell; when a user leaves it, the agent tries again.

if [ -e /run/cryptpilot/initrd.ended ] && [ -e /run/cryptpilot/stop-boot ]; then
    rm -f /run/cryptpilot/initrd.ended
    emergency_shell "cryptpilot: a volume that this boot cannot do without is not open; the reason is above"
    rm -f /run/cryptpilot/stop-boot
    /usr/bin/cryptpilot-initrd &
fi

#!/bin/sh
# In an initrd without systemd, with the root mounted: waits until the agent has ended. By now the agent leaves late
# volumes to the booted system. Gives up if a mount is missing that the pivot needs.

while ! [ -e /run/cryptpilot/initrd.ended ]; do
    sleep 0.1
done
while [ -e /run/cryptpilot/stop-boot ]; do
    emergency_shell "cryptpilot: a volume that this boot cannot do without is not open; the reason is above"
    rm -f /run/cryptpilot/stop-boot
    /usr/bin/cryptpilot-initrd
done

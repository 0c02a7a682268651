#!/bin/sh
# In an initrd without systemd, with the root mounted: waits until the agent has ended, which by now leaves volumes that
# are late to the booted system, and gives up if something is missing that has to be mounted before the pivot.

while ! [ -e /run/cryptpilot/initrd.ended ]; do
    sleep 0.1
done
while [ -e /run/cryptpilot/stop-boot ]; do
    emergency_shell "cryptpilot: a volume that this boot cannot do without is not open; the reason is above"
    rm -f /run/cryptpilot/stop-boot
    /usr/bin/cryptpilot-initrd
done

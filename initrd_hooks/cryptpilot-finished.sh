#!/bin/sh
# In an initrd without systemd: keeps dracut in its main loop until the agent has ended, and for good if it failed.

[ -e /run/cryptpilot/initrd.ended ] && ! [ -e /run/cryptpilot/stop-boot ]

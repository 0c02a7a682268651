#!/bin/sh
# Has dracut start counting anew while the agent is at work, which has a deadline of its own. Run when two thirds of
# rd.retry are over, in the shell of dracut's main loop, with systemd and without.

# shellcheck disable=SC2034,SC2154 # dracut's own
if [ -n "$DRACUT_SYSTEMD" ]; then
    [ "$(systemctl is-active cryptpilot-initrd.service)" != activating ] || main_loop=0
else
    [ -e /run/cryptpilot/initrd.ended ] || main_loop=0
fi

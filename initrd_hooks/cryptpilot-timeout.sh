#!/bin/sh
# Restarts dracut's count while the agent is running, which has its own deadline. Runs when two thirds of rd.retry are
# over, in the shell of dracut's main loop, with systemd and without.

# shellcheck disable=SC2034,SC2154 # dracut's own
if [ -n "$DRACUT_SYSTEMD" ]; then
    [ "$(systemctl is-active cryptpilot-initrd.service)" != activating ] || main_loop=0
else
    [ -e /run/cryptpilot/initrd.ended ] || main_loop=0
fi

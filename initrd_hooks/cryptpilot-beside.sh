#!/bin/sh
# Runs NetworkManager beside dracut's main loop, in whose shell this is, as dracut's own hook would: time and again,
# until there is an address. It ends when no program waits for a network any longer: the NetworkManager of the booted
# system comes next.

# shellcheck disable=SC2317 # it is read by another script
# not by ":", with which a shell ends when it cannot write a file
true > /run/cryptpilot/nm-runs
(
    until [ -e /run/cryptpilot/over ]; do
        # shellcheck source=/dev/null # dracut's
        . /run/cryptpilot/nm-run.sh
        sleep 1
    done
) &
(
    until [ -e /run/cryptpilot/over ]; do
        [ -e /etc/initrd-release ] || exit
        sleep 1
    done
    for process in /proc/[0-9]*; do
        ! grep -q configure-and-quit "$process/cmdline" 2> /dev/null || kill "${process#/proc/}"
    done
) &

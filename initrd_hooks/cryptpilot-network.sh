#!/bin/sh
# rd.neednet=1 keeps dracut in its main loop until there is a network: for good with the legacy scripts, and in turns of
# 90 s, one on each pass, where that loop runs NetworkManager. If it was only the agent that asked for one, dracut waits
# no longer than the agent does: see say_late in cryptpilot_boot/system/init.py, which does the same for units.

# shellcheck disable=SC2154 # dracut's own, which runs this in its shell
for wait in "$hookdir/initqueue/finished/wait-network.sh" "$hookdir/initqueue/finished/nm.sh" \
    "$hookdir/initqueue/settled/99-nm-run.sh"; do
    for file in /proc/cmdline /etc/cmdline.d/*.conf; do
        if [ "${file##*/}" != 95cryptpilot.conf ] && grep -q -s 'rd\.neednet' "$file"; then continue 2; fi
    done
    [ -e "$wait" ] || continue
    case $wait in
        */finished/*)
            { echo '[ -e /run/cryptpilot/late ] && exit 0' && cat "$wait"; } > "$wait.new" && mv "$wait.new" "$wait"
            ;;
        *)
            # what runs it already goes on when dracut begins again, which it does when an emergency shell is left
            [ ! -e /run/cryptpilot/nm-run.sh ] || continue
            # with systemd, NetworkManager has a unit since dracut 054
            [ -z "$DRACUT_SYSTEMD" ] || ! grep -q DRACUT_SYSTEMD "$wait" || continue
            # shellcheck disable=SC2174 # all of it is for everybody
            mkdir -p -m 755 /run/cryptpilot
            mv "$wait" /run/cryptpilot/nm-run.sh || continue
            # shellcheck disable=SC2016 # the shell is the main loop's
            echo '[ -e /run/cryptpilot/nm-runs ] || . /usr/libexec/cryptpilot/beside.sh' > "$wait"
            ;;
    esac
done
unset wait file

#!/bin/sh
# With dracut's legacy scripts, rd.neednet=1 keeps dracut in its main loop until there is a network, and for good where
# there is none. If it was only the agent that asked for one, that wait is over when the agent has waited long enough.

# shellcheck disable=SC2154 # dracut's own, which runs this in its shell
wait=$hookdir/initqueue/finished/wait-network.sh
if [ -e "$wait" ] && ! grep -q 'rd\.neednet' /proc/cmdline; then
    { echo '[ -e /run/cryptpilot/late ] && exit 0' && cat "$wait"; } > "$wait.new" && mv "$wait.new" "$wait"
fi

#!/bin/sh
# Runs the agent in an initrd without systemd, and carries what it says to the console and into the kernel's log.
# There it is for debugging, or else the kernel would put it on the console as well.
#
# The file initrd.ended tells dracut's hooks that it has ended and all was said.

mkdir -p /run/cryptpilot
rm -f /run/cryptpilot/initrd.ended
# shellcheck disable=SC2016 # the number is that of the inner shell, and so the agent's
sh -c 'echo $$; exec /usr/bin/cryptpilot boot-service --stage initrd' < /dev/null 2>&1 | {
    read -r pid
    while IFS= read -r line; do
        read -r now _ < /proc/uptime
        printf '[%12s] cryptpilot[%s]: %s\n' "$now" "$pid" "$line" > /dev/console
        printf '<31>cryptpilot[%s]: %s\n' "$pid" "$line" > /dev/kmsg
    done
}
: > /run/cryptpilot/initrd.ended

#!/bin/sh
# Runs the agent in an initrd without systemd, and copies its output to the console and into the kernel's log. There it
# is for debugging, or else the kernel would put it on the console as well.
#
# The file initrd.ended tells dracut's hooks that it has ended, stop-boot that the boot cannot go on. Each is made now under
# another name and renamed when it is time: that needs no room in /run, which may be full by then. Not by ":", with which
# a shell ends when it cannot write a file, as where /run is full from the start.

run=/run/cryptpilot
mkdir -p $run
rm -f $run/initrd.ended
true > $run/initrd.at-work
true > $run/may-stop-boot

tell_end() {
    mv -f $run/initrd.at-work $run/initrd.ended 2> /dev/null || true > $run/initrd.ended
}

{
    # shellcheck disable=SC2016 # the number is that of the inner shell, and so the agent's
    sh -c 'echo $$; exec /usr/bin/cryptpilot boot-service --stage initrd' < /dev/null 2>&1
    exec > /dev/null
    # the boot goes on when all was said; it does not wait for a console that takes nothing
    tries=30
    while [ "$tries" -gt 0 ] && ! [ -e $run/initrd.ended ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    [ -e $run/initrd.ended ] || tell_end
} | {
    read -r pid
    while IFS= read -r line; do
        read -r now _ < /proc/uptime
        printf '[%12s] cryptpilot[%s]: %s\n' "$now" "$pid" "$line" > /dev/console
        printf '<31>cryptpilot[%s]: %s\n' "$pid" "$line" > /dev/kmsg
    done
    [ -e $run/initrd.ended ] || tell_end
}

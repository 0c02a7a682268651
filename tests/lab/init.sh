#!/bin/bash
# The first program of a user-mode Linux machine, started by uml.py with $job naming its working directory.
#
# It begins on the host's own tree, read-only, with the host's programs; puts a writable layer kept in memory over
# the tree it was asked for; runs the job's script in there; and turns the machine off. The host takes
# what came out, and the exit status, from the working directory: the console is for what goes wrong on the way.
#
# Starting a program costs 60 ms in here, so what can be decided outside is decided there.
set -eu
job=${job:?}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/layer/upper /run/layer/work
xargs modprobe --dirname "$job/modules" --all <"$job/load"
mount --all --fstab "$job/fstab"
cp --archive "$job/dev/." /dev/
ip link set lo up

# hostfs writes a file through when it is closed; this shows the host what a hanging script said so far.
while sleep 1; do
    sync /run/job/stdout /run/job/stderr
done &

status=0
env -i PATH="$PATH" HOME=/root LC_ALL=C.UTF-8 TERM=dumb \
    chroot /run/root /bin/bash -euc "$(<"$job/script")" script \
    </dev/null >/run/job/stdout 2>/run/job/stderr || status=$?

sync
echo "$status" >/run/job/status
halt -f

#!/bin/sh
# chroot.sh ROOT POINT SHARE MOUNTS PROGRAM [ARGUMENT...]: run a program in a tree. See tree.py, which starts it in
# a mount namespace of its own: nothing here is undone, it vanishes.
set -eu
root=$1 point=$2 share=$3 mounts=$4
shift 4

# No block device of the host gets in: nothing that runs here can harm a disk.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
[ -z "$share" ] || mount --bind "$share" "$root$point"
for path in $mounts; do
    if [ -d "$path" ]; then
        mkdir -p "$root$path"
    else
        mkdir -p "$root${path%/*}"
        rm -f "$root$path" # it may be a link to nowhere
        touch "$root$path"
    fi
    mount --bind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
done

exec chroot "$root" "$@"

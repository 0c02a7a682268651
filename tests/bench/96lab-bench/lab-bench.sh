#!/bin/bash
# Leaves on a disk what the bench wants to know of this boot, and turns the machine off. On the kernel command line:
#   lab.volumes=N   not before N volumes are open
#   lab.floor=KEY   then close them, and time bare `cryptsetup open` of several at once, with a key file
set -u
results=/run/lab-bench
mkdir -p "$results"
volumes=0 floor=
for word in $(< /proc/cmdline); do
    case $word in
        lab.volumes=*) volumes=${word#*=} ;;
        lab.floor=*) floor=${word#*=} ;;
    esac
done

open_volumes() {
    open=()
    for path in /dev/mapper/v[0-9]; do
        [[ -b $path ]] && open+=("${path##*/}")
    done
}

# at_once N: opens N volumes side by side.
at_once() {
    local number
    for ((number = 0; number < $1; number++)); do
        cryptsetup open --type=luks2 --key-file="$floor" "/dev/disk/by-id/virtio-d$number" "v$number" &
    done
    wait
}

open_volumes
while ((${#open[@]} < volumes)); do
    sleep 0.2
    open_volumes
done
udevadm settle
((volumes)) && systemctl stop lab-watch.service
journalctl --boot --output=short-monotonic --no-pager > "$results/journal"
cp /run/cryptpilot/events.jsonl "$results" 2> /dev/null
udevadm info --export-db > "$results/devices"

if [[ $floor ]]; then
    for count in 1 4 8 1 4 8 1 4 8; do
        open_volumes
        for name in "${open[@]}"; do cryptsetup close "$name"; done
        udevadm settle
        begun=$EPOCHREALTIME
        at_once "$count"
        echo "$count $begun $EPOCHREALTIME" >> "$results/floor"
    done
fi

tar -cf /dev/disk/by-id/virtio-report -C "$results" .
sync
poweroff --force --force

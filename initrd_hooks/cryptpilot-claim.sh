#!/bin/sh
# Keeps dracut's own crypt module off the disks of volumes, whatever the kernel command line says (rd.luks.uuid=,
# rd.auto and the like): that module would ask for the passphrase of each, and wait for those that are opened in the
# booted system. Runs after that module has written its tasks, and before udev starts. A device with another program's
# LUKS header is left to that module: names of disks change between boots.
# In claim/devices are the names of the disks below /dev, in claim/uuids the UUIDs of their headers without hyphens.

claim=/usr/libexec/cryptpilot/claim
rules=/etc/udev/rules.d/70-luks.rules
# shellcheck disable=SC2154 # dracut's own, which runs this in its shell
finished=$hookdir/initqueue/finished/90-crypt.sh

# with cryptpilot=no, these may open the disks instead
{ getargbool 1 cryptpilot && getargbool 1 rd.cryptpilot; } || return 0
if [ -e "$rules" ]; then
    {
        while read -r name; do
            # shellcheck disable=SC2016 # udev's own
            printf '%s=="%s", PROGRAM!="/usr/libexec/cryptpilot-unless-ours --foreign $devnode", GOTO="luks_end"\n' \
                KERNEL "$name" SYMLINK "$name"
        done < "$claim/devices"
        cat "$rules"
    } > "$rules.new" && mv "$rules.new" "$rules"
fi
if [ -e "$finished" ] && [ -s "$claim/uuids" ]; then
    # 1: no line is left, since all that is waited for is ours
    { grep -v -F -f "$claim/uuids" "$finished" > "$finished.new" || [ $? -eq 1 ]; } && mv "$finished.new" "$finished"
fi
unset claim rules finished name

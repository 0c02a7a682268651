#!/bin/bash
# Which disks dracut's own module for LUKS disks must leave to the agent.
# A part of module-setup.sh, which has what is used here and not defined.

# shellcheck disable=SC2154  # dracut sets these, and module-setup.sh sets _agent

# dracut's own module for LUKS disks ran before this one. For a host-only image it has written down the disks below all
# system mounts and swap, our volumes among them. The agent opens these. dracut would wait without end for a disk that is
# opened later or has another UUID by then, and without systemd ask for its password. It would do the same for disks that
# the kernel command line names; a hook and systemd prevent that at boot.
_claim_from_crypt() {
    local kind value uuid conf word words kept condition='' ours='' devices=() uuids=()
    while read -r kind value; do
        case $kind in
            device | claim)
                uuid=''
                _foreign "$value" || uuid=$(blkid -p -u crypto -s UUID -o value "$value" 2> /dev/null)
                ours+="${uuid:+ rd.luks.uuid=luks-$uuid }"
                [[ $kind == claim ]] || continue
                # only characters that are literal in a pattern of udev's rules
                [[ $value =~ ^/dev/[A-Za-z0-9/._:@+=,-]+$ ]] && devices+=("$value")
                [[ $uuid =~ ^[0-9a-fA-F-]+$ ]] && uuids+=("${uuid//-/}")
                ;;
            condition) condition=$value ;;
        esac
    done
    # 90crypt.conf with dracut 051 to 106
    for conf in "$initdir"/etc/cmdline.d/*crypt.conf; do
        [[ -e $conf ]] || continue
        read -r -d '' -a words < "$conf"
        kept=()
        for word in "${words[@]}"; do
            [[ $ours == *" $word "* ]] || kept+=("$word")
        done
        rm "$conf"
        [[ ! ${kept[*]} ]] || echo "${kept[*]}" > "$conf"
    done
    [[ ${devices[*]} ]] && dracut_module_included crypt || return 0
    _claim_crypttab "${devices[@]}"
    mkdir -p "$initdir$_agent/claim"
    printf '%s\n' "${devices[@]#/dev/}" > "$initdir$_agent/claim/devices"
    [[ ! ${uuids[*]} ]] || printf '%s\n' "${uuids[@]}" > "$initdir$_agent/claim/uuids"
    inst_multiple cat dd grep mv readlink || _fail "cat, dd, grep, mv or readlink is missing"
    inst_simple /usr/libexec/cryptpilot-unless-ours || _fail "/usr/libexec/cryptpilot-unless-ours is missing"
    inst_hook cmdline 31 "$moddir/cryptpilot-claim.sh"
    if [[ $condition ]] && dracut_module_included systemd-initrd; then
        mkdir -p "$initdir$systemdsystemunitdir/systemd-cryptsetup@.service.d"
        printf '[Service]\n%s\n' "$condition" \
            > "$initdir$systemdsystemunitdir/systemd-cryptsetup@.service.d/45-cryptpilot.conf"
    fi
}

# Whether a device holds a LUKS header that is not ours. Disks change their names, so the path of a volume may be another
# disk.
_foreign() {
    "${dracutsysrootdir-}/usr/libexec/cryptpilot-unless-ours" --foreign "$1" 2> /dev/null
}

# Removes the lines of these devices from the image's crypttab. dracut writes the path of each device there, whatever the
# system's own file has.
_claim_crypttab() {
    local line device ours kept=()
    [[ -s $initdir/etc/crypttab ]] || return 0
    while IFS= read -r line; do
        read -r _ device _ <<< "$line"
        for ours in "$@"; do
            [[ $device == "$ours" || $device -ef $ours ]] && ! _foreign "$ours" && continue 2
        done
        kept+=("$line")
    done < "$initdir/etc/crypttab"
    : > "$initdir/etc/crypttab"
    [[ ! ${kept[*]} ]] || printf '%s\n' "${kept[@]}" > "$initdir/etc/crypttab"
}

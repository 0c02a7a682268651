#!/bin/bash
# Which images are for the kernel that writes a crash dump, and how cryptpilot keeps out of them.
# A part of module-setup.sh, which has what is used here and not defined.

# shellcheck disable=SC2154  # dracut sets these, and module-setup.sh sets _agent

# Whether the image is for the kernel that writes a crash dump. That kernel has little memory and mounts no root, so its
# image gets no agent, no credentials and no network. mkdumprd of the Enterprise Linux family sets IN_KDUMP=1 and adds
# kdumpbase; SUSE's module is called kdump. An administrator may force cryptpilot in.
_is_for_crash_dump() {
    local asked=" $dracutmodules $add_dracutmodules $force_add_dracutmodules "
    [[ " $force_add_dracutmodules " != *" cryptpilot "* ]] || return 1
    [[ $IN_KDUMP == 1 || $asked == *" kdumpbase "* || $asked == *" kdump "* ]]
}

# Whether the dump goes to a volume that the initrd opens, or to something that lies on one.
_dump_needs_a_volume() {
    local device name names
    names=$(_plan 2> /dev/null | sed -n 's/^volume //p')
    # dracut has the devices of --mount and --device in host_devs, since dracut 106 in user_devs. The devices of the
    # running system are there too, unless mkdumprd leaves them out. No dump goes to swap.
    for device in "${host_devs[@]}" "${user_devs[@]}"; do
        [[ " ${swap_devs[*]} " != *" $device "* ]] || continue
        while read -r name; do
            [[ $name && $'\n'$names$'\n' == *$'\n'"$name"$'\n'* ]] && return 0
        done < <(_mappings_of "$(expand_persistent_dev "$device")")
    done
    return 1
}

# Prints the names of the device-mapper devices that a device is made of, itself included.
_mappings_of() {
    local number
    if [[ -b $1 ]]; then
        number=$(stat -L -c '%t:%T' "$1")
        _mappings_below "$(readlink -f "/sys/dev/block/$((0x${number%:*})):$((0x${number#*:}))")"
    else
        # a device that is not open has nothing in /sys
        echo "${1#/dev/mapper/}"
    fi
}

# The same for a device's directory in /sys.
_mappings_below() {
    local below
    [[ ! -e $1/dm/name ]] || cat "$1/dm/name"
    for below in "$1"/slaves/*; do
        [[ ! -e $below ]] || _mappings_below "$(readlink -f "$below")"
    done
    [[ ! -e $1/partition ]] || _mappings_below "${1%/*}"
}

# Removes cryptpilot from dracut's lists. dracut fails the whole image when a module is left out that /etc/dracut.conf
# names. And its module for LUKS disks would make the image ask for the password of each volume that is in use now.
_withdraw() {
    local list kind value device
    for list in dracutmodules add_dracutmodules; do
        [[ " ${!list} " != *" cryptpilot "* ]] || printf -v "$list" '%s' "$(_without_us "${!list}")"
    done
    while read -r kind value; do
        [[ $kind == device ]] || continue
        for device in "${!host_fs_types[@]}"; do
            [[ ! $device -ef $value ]] || unset "host_fs_types[$device]"
        done
    done < <(_plan 2> /dev/null)
}

_without_us() {
    local module
    for module in $1; do
        [[ $module == cryptpilot ]] || printf ' %s ' "$module"
    done
}

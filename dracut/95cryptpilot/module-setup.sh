#!/bin/bash
# Puts the cryptpilot agent into the initrd, with the configuration of the volumes it opens there.
#
# What those volumes need is decided by `cryptpilot initrd plan`, which prints one "kind value" a line; this only
# carries it out. A configuration that cannot be used fails the image: without the agent's part it would be made
# all the same, and nobody would know before the next boot.

# shellcheck disable=SC2154  # dracut sets dracutbasedir, dracutsysrootdir, initdir, moddir, omit_dracutmodules,
# systemdsystemunitdir, systemdutildir

_agent=/usr/lib/cryptpilot

# called by dracut
check() {
    local volumes=("$dracutsysrootdir"/etc/cryptpilot/volumes/*.toml)
    [[ -e ${volumes[0]} ]] || return 255
    # dracut leaves a module out whose dependency it does not have, with a word few would notice.
    if _plan 2> /dev/null | grep -q '^network ' && ! compgen -G "$dracutbasedir/modules.d/??network" > /dev/null; then
        _fail "a volume has its key in KMS, and dracut has no network module (Debian: install dracut-network)"
    fi
    if ! _may_have_systemd && _plan 2> /dev/null | grep -q '^network ' && [[ ! $(_network_without_systemd) ]]; then
        _fail "a volume has its key in KMS, and dracut's network without systemd takes dhclient and arping \
(Debian: install isc-dhcp-client and iputils-arping)"
    fi
    return 0
}

# Whether systemd may be in the image: when dependencies are asked for, dracut does not know yet whether it will be.
_may_have_systemd() {
    [[ " $omit_dracutmodules " != *" systemd "* && " $omit_dracutmodules " != *" systemd-initrd "* ]] \
        && [[ -x $dracutsysrootdir$systemdutildir/systemd ]]
}

# Which network module to take where there is no systemd. Left to itself, dracut 059 takes systemd-networkd even then.
_network_without_systemd() {
    local module
    for module in network-wicked connman network-manager network-legacy; do
        dracut_module_included "$module" && echo "$module" && return
    done
    if find_binary dhclient > /dev/null && { find_binary arping || find_binary arping2; } > /dev/null; then
        echo network-legacy
    fi
}

_fail() {
    dfatal "cryptpilot: $1; no image is made"
    exit 1
}

_plan() {
    if [[ $dracutsysrootdir ]]; then
        chroot "$dracutsysrootdir" "$_agent/cryptpilot" initrd "${1:-plan}"
    else
        "$_agent/cryptpilot" initrd "${1:-plan}"
    fi
}

# called by dracut
depends() {
    local kind
    _plan 2> /dev/null | while read -r kind _; do
        case $kind in
            program)
                echo dm rootfs-block
                ! _may_have_systemd || echo systemd-initrd
                ;;
            network)
                _may_have_systemd || _network_without_systemd
                echo network
                ;;
        esac
    done
    return 0
}

# called by dracut
installkernel() {
    local kind value
    _plan 2> /dev/null | while read -r kind value; do
        # With or without hostonly: what the host has loaded now says nothing about the volumes.
        [[ $kind == module ]] && hostonly='' instmods "$value"
    done
    return 0
}

# called by dracut
install() {
    local plan kind value file
    if ! plan=$(_plan); then
        dfatal "cryptpilot: no image is made, because its volumes could not be opened with it (see above)"
        exit 1
    fi
    _claim_from_crypt <<< "$plan"
    # volumes there may be, and none for the initrd
    grep -q '^config ' <<< "$plan" || return 0
    while read -r file; do
        inst_simple "$_agent/$file" || _fail "$_agent/$file is missing"
    done < "$dracutsysrootdir$_agent/manifest.files"
    while read -r file; do
        inst_libdir_file "$file" || _fail "library $file is missing"
    done < "$dracutsysrootdir$_agent/manifest.libraries"
    # glibc before 2.34 loads these by itself to look up a host name; a newer one does without
    while read -r file; do
        inst_libdir_file "$file" || :
    done < "$dracutsysrootdir$_agent/manifest.libraries-optional"
    inst_simple /usr/bin/cryptpilot || _fail "/usr/bin/cryptpilot is missing"
    # what the image is made from, for `cryptpilot initrd status`
    _plan record > "$initdir$_agent/image.json" || _fail "what the image is made from cannot be written down"

    while read -r kind value; do
        case $kind in
            config)
                inst_simple "$value" || _fail "$value is missing"
                chmod 600 "$initdir$value"
                ;;
            program)
                inst_multiple "$value" || _fail "program $value is missing"
                ;;
            authorities)
                inst_simple "$value" || _fail "$value is missing"
                ;;
            network)
                inst_simple "$moddir/zz-cryptpilot-dhcp.network" /usr/lib/systemd/network/zz-cryptpilot-dhcp.network \
                    || _fail "zz-cryptpilot-dhcp.network is missing"
                mkdir -p "$initdir/etc/cmdline.d"
                echo rd.neednet=1 > "$initdir/etc/cmdline.d/95cryptpilot.conf" \
                    || _fail "the network cannot be asked for"
                # after dracut's legacy scripts have said what is waited for, before its main loop
                inst_hook pre-trigger 11 "$moddir/cryptpilot-network.sh"
                ;;
        esac
    done <<< "$plan"

    inst_rules 00-cryptpilot.rules
    inst_hook initqueue/timeout 10 "$moddir/cryptpilot-timeout.sh"
    if dracut_module_included systemd-initrd; then
        _start_by_systemd
    else
        _start_by_hooks
    fi
}

# dracut's own module for LUKS disks ran before this one. For a host-only image it has written down those below all that
# is mounted for the system's sake or is swap, volumes of ours among them. These are the agent's: dracut would wait for a
# disk in vain that is opened later or has another UUID by then, and without systemd ask for a password of each.
_claim_from_crypt() {
    local kind value uuid conf word words kept ours=''
    while read -r kind value; do
        [[ $kind == device ]] || continue
        uuid=$(blkid -p -u crypto -s UUID -o value "$value" 2> /dev/null)
        ours+="${uuid:+ rd.luks.uuid=luks-$uuid }"
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
}

_start_by_systemd() {
    inst_simple "$moddir/cryptpilot-initrd.service" "$systemdsystemunitdir/cryptpilot-initrd.service" \
        || _fail "cryptpilot-initrd.service is missing"
    # systemd passes over a wants entry that is no symbolic link; systemctl makes one. dracut 051 has no $SYSTEMCTL.
    ${SYSTEMCTL:-systemctl} -q --root "$initdir" add-wants initrd.target cryptpilot-initrd.service \
        || _fail "cryptpilot-initrd.service cannot be enabled"
}

_start_by_hooks() {
    inst_script "$moddir/cryptpilot-initrd.sh" /usr/bin/cryptpilot-initrd || _fail "cryptpilot-initrd.sh is missing"
    inst_hook pre-trigger 10 "$moddir/cryptpilot-start.sh"
    inst_hook initqueue 10 "$moddir/cryptpilot-give-up.sh"
    inst_hook initqueue/finished 10 "$moddir/cryptpilot-finished.sh"
    # before dracut mounts /usr
    inst_hook pre-pivot 10 "$moddir/cryptpilot-pivot.sh"
    # what tells the agent where it is; dracut 106 leaves it to systemd's modules
    [[ -e $initdir/etc/initrd-release ]] || ln -s ../usr/lib/initrd-release "$initdir/etc/initrd-release"
}

#!/bin/bash
# Puts the cryptpilot agent into the initrd, with the configuration of the volumes it opens there.
#
# `cryptpilot initrd plan` decides what those volumes need, and prints one "kind value" a line; this only carries it out.
# A configuration that cannot be used fails the image. dracut would otherwise make it without the agent, and the next
# boot would be the first to show that.

# shellcheck disable=SC2154  # dracut sets dracutbasedir, dracutsysrootdir, initdir, moddir, systemdsystemunitdir,
# systemdutildir, {,add_,force_add_,omit_}dracutmodules, {host,user,swap}_devs

_agent=/usr/libexec/cryptpilot

_fail() {
    dfatal "cryptpilot: $1; no image is made"
    exit 1
}

# A part that is missing fails the image: dracut goes on where a function is not defined.
_part() {
    # dracut sets moddir only when it calls a function
    # shellcheck source=/dev/null
    . "${BASH_SOURCE[0]%/*}/$1" || _fail "$1 is missing: install cryptpilot again"
}

_part setup-crash-dump.sh
_part setup-claim.sh
_part setup-unit.sh
_part setup-shutdown.sh
_part setup-console.sh
_part setup-start.sh

# called by dracut
check() {
    local program
    # also a link whose target is missing: the plan fails for it, and says why
    compgen -G "$dracutsysrootdir/etc/cryptpilot/volumes/*.toml" > /dev/null || return 255
    if _is_for_crash_dump && ! _dump_needs_a_volume; then
        _withdraw
        return 1
    fi
    # dracut would make an image without it, which cannot switch to its root
    _may_have_systemd || find_binary switch_root > /dev/null || _fail "an image without systemd takes switch_root: \
install util-linux, or util-linux-extra where that is a package of its own (Debian 14)"
    # dracut leaves out a module whose dependency is missing, with a message that few would notice.
    if _plans network; then
        _has_module network || _fail "the key of a volume comes over the network, and dracut has no network module: \
install dracut-network"
        _may_have_systemd || [[ $(_network_without_systemd) ]] || _fail "the key of a volume comes over the network, \
and dracut's network without systemd takes $(_needed_without_systemd)"
    fi
    if _plans ask && _may_have_systemd; then
        for program in systemd-ask-password systemd-tty-ask-password-agent; do
            find_binary "$program" > /dev/null || _fail "[boot] ask = true takes $program: install systemd"
        done
    fi
    # A dependency of a dependency may be omitted, and dracut then leaves this module out. A module that is forced in
    # fails the image instead.
    [[ " $force_add_dracutmodules " == *" cryptpilot "* ]] || ! _plans volume || force_add_dracutmodules+=" cryptpilot "
    return 0
}

# Whether the plan has a line of that kind. Reads all of it: a program whose output is not read fails, and dracut sets
# pipefail.
_plans() {
    _plan 2> /dev/null | grep "^$1 " > /dev/null
}

# Whether this dracut has a module of that name.
_has_module() {
    compgen -G "$dracutbasedir/modules.d/??$1" > /dev/null
}

# Whether systemd may be in the image. When dracut asks for dependencies, it does not know yet whether it will be.
_may_have_systemd() {
    [[ " $omit_dracutmodules " != *" systemd "* && " $omit_dracutmodules " != *" systemd-initrd "* ]] \
        && [[ -x $dracutsysrootdir$systemdutildir/systemd ]]
}

# The network module for an image without systemd. By itself, dracut 059 takes systemd-networkd even then.
_network_without_systemd() {
    local module
    for module in network-wicked connman network-manager network-legacy; do
        dracut_module_included "$module" && echo "$module" && return
    done
    if ! _has_module network-legacy; then
        # dracut 110 dropped it; its module for NetworkManager needs no D-Bus then, and so no systemd
        ! find_binary NetworkManager > /dev/null || echo network-manager
    elif find_binary dhclient > /dev/null && { find_binary arping || find_binary arping2; } > /dev/null; then
        echo network-legacy
    fi
}

_needed_without_systemd() {
    if _has_module network-legacy; then
        echo "dhclient and arping: install isc-dhcp-client and iputils-arping (Debian), dhcp-client and iputils \
(Enterprise Linux)"
    else
        echo "NetworkManager: install network-manager (Debian), NetworkManager (Enterprise Linux)"
    fi
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
                # runs hooks that wait; a part of base before dracut 108
                ! _has_module initqueue || echo initqueue
                ! _may_have_systemd || echo systemd-initrd
                ;;
            network)
                _may_have_systemd || _network_without_systemd
                echo network
                ;;
            # a part of dracut's systemd modules before dracut 055
            ask) ! _may_have_systemd || ! _has_module systemd-ask-password || echo systemd-ask-password ;;
        esac
    done
    return 0
}

# called by dracut
installkernel() {
    local kind value
    _plan 2> /dev/null | while read -r kind value; do
        # With or without hostonly: the modules that are loaded now say nothing about the volumes.
        [[ $kind == module ]] && hostonly='' instmods "$value"
        # shellcheck disable=SC2154  # dracut's own: the version of the kernel
        [[ $kind == driver ]] && modinfo -k "$kernel" "$value" &> /dev/null && hostonly='' instmods "$value"
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
    # there may be volumes, but none for the initrd
    grep -q '^config ' <<< "$plan" || return 0
    while read -r file; do
        inst_simple "$_agent/$file" || _fail "$_agent/$file is missing"
    done < "$dracutsysrootdir$_agent/manifest.files"
    while read -r file; do
        inst_libdir_file "$file" || _fail "library $file is missing"
    done < "$dracutsysrootdir$_agent/manifest.libraries"
    # glibc loads these by itself: to end a thread, and before 2.34 to resolve a host name. One that is missing is not needed.
    while read -r file; do
        inst_libdir_file "$file" || :
    done < "$dracutsysrootdir$_agent/manifest.libraries-optional"
    inst_simple /usr/bin/cryptpilot || _fail "/usr/bin/cryptpilot is missing"
    # the record that `cryptpilot initrd status` reads
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
            file | authorities)
                inst_simple "$value" || _fail "$value is missing"
                ;;
            network)
                inst_simple "$moddir/zz-cryptpilot-dhcp.network" /usr/lib/systemd/network/zz-cryptpilot-dhcp.network \
                    || _fail "zz-cryptpilot-dhcp.network is missing"
                mkdir -p "$initdir/etc/cmdline.d"
                echo rd.neednet=1 > "$initdir/etc/cmdline.d/95cryptpilot.conf" \
                    || _fail "the network cannot be asked for"
                # before dracut's module for NetworkManager makes connections
                inst_hook cmdline 98 "$moddir/cryptpilot-connections.sh"
                # after dracut's legacy scripts have written what is waited for, before its main loop
                inst_hook pre-trigger 11 "$moddir/cryptpilot-network.sh"
                inst_simple "$moddir/cryptpilot-beside.sh" "$_agent/beside.sh" || _fail "cryptpilot-beside.sh is missing"
                ;;
            unit)
                _install_unit "$value"
                ;;
            shell)
                [[ $value == yes ]] || _give_no_shell
                ;;
            # without systemd the agent asks by itself
            ask) ! dracut_module_included systemd-initrd || _ask_on_consoles ;;
        esac
    done <<< "$plan"

    _keep_for_shutdown
    inst_rules 00-cryptpilot.rules
    inst_hook initqueue/timeout 10 "$moddir/cryptpilot-timeout.sh"
    if dracut_module_included systemd-initrd; then
        _start_by_systemd
    else
        _start_by_hooks
    fi
}


#!/bin/bash
# Puts the cryptpilot agent into the initrd, with the configuration of the volumes it opens there.
#
# What those volumes need is decided by `cryptpilot initrd plan`, which prints one "kind value" a line; this only
# carries it out. A configuration that cannot be used fails the image: without the agent's part it would be made
# all the same, and nobody would know before the next boot.

# shellcheck disable=SC2154  # dracut sets dracutbasedir, dracutsysrootdir, initdir, moddir, systemdsystemunitdir,
# systemdutildir, {,add_,force_add_,omit_}dracutmodules, {host,user,swap}_devs

_agent=/usr/libexec/cryptpilot

# called by dracut
check() {
    local program
    # a link to nowhere included: the plan fails for it, and says why
    compgen -G "$dracutsysrootdir/etc/cryptpilot/volumes/*.toml" > /dev/null || return 255
    if _is_for_crash_dump && ! _dump_needs_a_volume; then
        _withdraw
        return 1
    fi
    # dracut makes an image without it, which cannot go over to its root
    _may_have_systemd || find_binary switch_root > /dev/null || _fail "an image without systemd takes switch_root: \
install util-linux, or util-linux-extra where that is a package of its own (Debian 14)"
    # dracut leaves a module out whose dependency it does not have, with a word few would notice.
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
    # What one of the modules that this one depends on depends on may be omitted. Of a module that is forced in, dracut
    # makes no image without it.
    [[ " $force_add_dracutmodules " == *" cryptpilot "* ]] || ! _plans volume || force_add_dracutmodules+=" cryptpilot "
    return 0
}

# Whether the plan has a line of that kind. All of it is read: a program whose output is not taken fails, and dracut has
# bash take that for the failure of the whole pipe.
_plans() {
    _plan 2> /dev/null | grep "^$1 " > /dev/null
}

# Whether this dracut has a module of that name.
_has_module() {
    compgen -G "$dracutbasedir/modules.d/??$1" > /dev/null
}

# Whether the image is for the kernel that writes a crash dump: it boots into little memory, from which no root is
# mounted, so it gets neither the agent nor its credentials nor a network. mkdumprd of the Enterprise Linux family says
# IN_KDUMP=1 and adds kdumpbase; SUSE's module is called kdump. An administrator who forces cryptpilot in gets it.
_is_for_crash_dump() {
    local asked=" $dracutmodules $add_dracutmodules $force_add_dracutmodules "
    [[ " $force_add_dracutmodules " != *" cryptpilot "* ]] || return 1
    [[ $IN_KDUMP == 1 || $asked == *" kdumpbase "* || $asked == *" kdump "* ]]
}

# Whether the dump goes to a volume that the initrd opens, or to something that lies on one.
_dump_needs_a_volume() {
    local device name names
    names=$(_plan 2> /dev/null | sed -n 's/^volume //p')
    # What dracut is given by --mount and --device is in host_devs, since dracut 106 in user_devs. Beside it are the
    # devices of the running system unless mkdumprd has them left out; no dump goes to swap.
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
        # what is not open just now has nothing in /sys
        echo "${1#/dev/mapper/}"
    fi
}

# The same of a device's directory in /sys.
_mappings_below() {
    local below
    [[ ! -e $1/dm/name ]] || cat "$1/dm/name"
    for below in "$1"/slaves/*; do
        [[ ! -e $below ]] || _mappings_below "$(readlink -f "$below")"
    done
    [[ ! -e $1/partition ]] || _mappings_below "${1%/*}"
}

# Leaves no trace of cryptpilot in an image. dracut fails the whole image when a module is left out that
# /etc/dracut.conf asks for by name. And its module for LUKS disks would have the image ask for the password of each
# volume that the running system has in use.
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
    if ! _has_module network-legacy; then
        # dracut 110 dropped it; its module for NetworkManager does without D-Bus then, and so without systemd
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
                # what runs hooks that wait, a part of base before dracut 108
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
        # With or without hostonly: what the host has loaded now says nothing about the volumes.
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
    # volumes there may be, and none for the initrd
    grep -q '^config ' <<< "$plan" || return 0
    while read -r file; do
        inst_simple "$_agent/$file" || _fail "$_agent/$file is missing"
    done < "$dracutsysrootdir$_agent/manifest.files"
    while read -r file; do
        inst_libdir_file "$file" || _fail "library $file is missing"
    done < "$dracutsysrootdir$_agent/manifest.libraries"
    # glibc loads these by itself: to end a thread, and before 2.34 to look up a host name; what is not there is not needed
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
                # after dracut's legacy scripts have said what is waited for, before its main loop
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

# dracut's own module for LUKS disks ran before this one. For a host-only image it has written down those below all that
# is mounted for the system's sake or is swap, volumes of ours among them. These are the agent's: dracut would wait for a
# disk in vain that is opened later or has another UUID by then, and without systemd ask for a password of each. So would
# it for what the kernel command line names; that is for a hook to see to, and for systemd, at boot.
_claim_from_crypt() {
    local kind value uuid conf word words kept condition='' ours='' devices=() uuids=()
    while read -r kind value; do
        case $kind in
            device | claim)
                uuid=''
                _foreign "$value" || uuid=$(blkid -p -u crypto -s UUID -o value "$value" 2> /dev/null)
                ours+="${uuid:+ rd.luks.uuid=luks-$uuid }"
                [[ $kind == claim ]] || continue
                # as a pattern of udev's rules each of these stands for itself
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

# Whether a device holds a LUKS header that is not ours: names of disks change, and a volume's path may be another disk.
_foreign() {
    "${dracutsysrootdir-}/usr/libexec/cryptpilot-unless-ours" --foreign "$1" 2> /dev/null
}

# The lines of the image's crypttab for these devices; dracut has the path of each, whatever the system's own file says.
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

# What the agent keeps in memory for the machine's shutdown, see cryptpilot_boot/system/exitrd.py. It is systemd that
# runs it: where that is not installed, it is for nobody.
_keep_for_shutdown() {
    local program paths programs=("$systemdutildir/systemd-shutdown")
    [[ -x $dracutsysrootdir${programs[0]} ]] || return 0
    ! program=$(find_binary kexec) || programs+=("$program")
    mapfile -t paths < <(_libraries "${programs[@]}")
    inst_multiple "${programs[@]}" "${paths[@]}" || _fail "what the machine is turned off with is missing"
    printf '%s\n' "${programs[@]}" "${paths[@]}" > "$initdir$_agent/shutdown.files" \
        || _fail "what the machine is turned off with cannot be written down"
}

# Which libraries programs are loaded with, the loader included: all that ldd has a path for, and the same of those that
# they load while they run.
_libraries() {
    local program words word later
    for program in "$@"; do
        while read -r -a words; do
            for word in "${words[@]}"; do
                [[ $word != /* ]] || echo "$word"
            done
        done < <(${dracutsysrootdir:+chroot "$dracutsysrootdir"} ldd "$program" 2> /dev/null)
        mapfile -t later < <(_loaded_later "$program")
        [[ ! ${later[*]} ]] || { printf '%s\n' "${later[@]}" && _libraries "${later[@]}"; }
    done | sort -u
}

# The libraries that a program opens by name while it runs, of those that are there. systemd notes their names in its
# programs since it does so: systemd-shutdown of version 262 unmounts nothing without libmount.
_loaded_later() {
    local name directory
    while read -r name; do
        # shellcheck disable=SC2154  # dracut's own: where it looks for libraries itself
        for directory in $libdirs; do
            [[ -e $dracutsysrootdir$directory/$name ]] && echo "$directory/$name" && break
        done
    done < <(grep -ao '"soname":\[[^]]*\]' "$dracutsysrootdir$1" | grep -o '"lib[^"]*' | tr -d '"')
}

# A service that gives a key out, or proves for it what runs here: as this system runs it, drop-ins included, with its
# programs, and the files below /etc that its command line or EnvironmentFile names. What it waits for is left out: most
# of that is in no image, or waits for a volume. It starts with the agent; only the network is waited for.
_install_unit() {
    local unit=$1 file='' directory line more text word words=() online='' above=/etc/systemd/system
    local comment='^[[:space:]]*[#;]'
    dracut_module_included systemd-initrd || _fail "$unit is a service, which takes an image with systemd"
    for directory in "$above" /usr/local/lib/systemd/system "$systemdsystemunitdir"; do
        [[ ! -f $dracutsysrootdir$directory/$unit ]] || { file=$directory/$unit && break; }
    done
    [[ $file ]] || _fail "$unit is missing: install ${unit%.service}"
    mkdir -p "$initdir$above/$unit.d" "$initdir$above/cryptpilot-initrd.service.d"
    while IFS= read -r line; do
        text=$line
        # one that ends in a backslash goes on in the next one that is no comment; see systemd.syntax(7)
        while [[ $line == *\\ && ! $line =~ $comment ]] && IFS= read -r more; do
            text+=$'\n'$more
            [[ $more =~ $comment ]] || line="${line%\\} $more"
        done
        if [[ $line =~ ^(After|Before|Requires|Requisite|Wants|BindsTo|PartOf|Conflicts)[[:space:]]*= ]]; then
            [[ $line != After*network-online.target* ]] || online=After=network-online.target
            continue
        fi
        echo "$text"
        if [[ $line =~ ^EnvironmentFile[[:space:]]*=[[:space:]]*-?(/etc/.*[^[:space:]]) ]]; then
            [[ ! -f $dracutsysrootdir${BASH_REMATCH[1]} ]] || inst_simple "${BASH_REMATCH[1]}" >&2
        fi
        [[ $line =~ ^Exec(Start|StartPre|Condition)[[:space:]]*=[[:space:]]*[-@:+!]*(.*)$ ]] || continue
        read -r -a words <<< "${BASH_REMATCH[2]}"
        [[ ${words[*]} ]] || continue # it takes back what stood before
        inst_multiple "${words[0]}" >&2 || _fail "program ${words[0]} of $unit is missing"
        for word in "${words[@]:1}"; do
            word=${word#*=}
            [[ $word != /etc/* || ! -f $dracutsysrootdir$word ]] || inst_simple "$word" >&2
        done
    done < <(_with_drop_ins "$file" "$unit") > "$initdir$above/$unit"
    printf '[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n%s\n[Service]\n%s\n%s\n' \
        "$online" 'RuntimeDirectory=confidential-containers confidential-containers/attestation-agent' \
        RuntimeDirectoryPreserve=yes > "$initdir$above/$unit.d/cryptpilot.conf"
    printf '[Unit]\nWants=%s\n' "$unit" > "$initdir$above/cryptpilot-initrd.service.d/$unit.conf"
}

# The text of a unit's file, and of what changes it.
_with_drop_ins() {
    local conf
    cat "$dracutsysrootdir$1"
    for conf in "$dracutsysrootdir"{"$systemdsystemunitdir",/usr/local/lib/systemd/system,/etc/systemd/system}/"$2.d"/*.conf; do
        [[ ! -f $conf ]] || { echo && cat "$conf"; }
    done
}

# A boot that is denied something gives no root shell on the console; see cryptpilot-no-shell.sh. dracut has a hook
# before each shell, with systemd and without; what else has one are units.
_give_no_shell() {
    local hook unit
    mkdir -p "$initdir/etc/cmdline.d"
    echo rd.shell=0 > "$initdir/etc/cmdline.d/95cryptpilot-shell.conf" || _fail "the shell cannot be switched off"
    inst_script "$moddir/cryptpilot-no-shell.sh" /usr/bin/cryptpilot-no-shell \
        || _fail "cryptpilot-no-shell.sh is missing"
    inst_multiple sleep || _fail "program sleep is missing"
    inst_multiple -o reboot poweroff
    for hook in emergency shutdown-emergency; do
        inst_hook "$hook" 00 "$moddir/cryptpilot-emergency.sh"
    done
    dracut_module_included systemd || return 0
    for unit in emergency rescue dracut-emergency; do
        _drop_in "$unit" cryptpilot-no-shell.conf
    done
    _drop_in debug-shell cryptpilot-debug-shell.conf
}

_drop_in() {
    inst_simple "$moddir/$2" "/etc/systemd/system/$1.service.d/$2" || _fail "$2 is missing"
}

# What systemd asks a person with, on each console; dracut's modules for plymouth bring what asks on the boot screen.
_ask_on_consoles() {
    local unit=systemd-ask-password-console
    inst_multiple systemd-ask-password systemd-tty-ask-password-agent || _fail "systemd-ask-password is missing"
    inst_multiple "$systemdsystemunitdir/$unit.path" "$systemdsystemunitdir/$unit.service" || _fail "$unit is missing"
    ${SYSTEMCTL:-systemctl} -q --root "$initdir" add-wants sysinit.target "$unit.path" \
        || _fail "$unit.path cannot be enabled"
}

_start_by_systemd() {
    local unit
    inst_simple "$moddir/cryptpilot-initrd.service" "$systemdsystemunitdir/cryptpilot-initrd.service" \
        || _fail "cryptpilot-initrd.service is missing"
    # systemd passes over a wants entry that is no symbolic link; systemctl makes one. dracut 051 has no $SYSTEMCTL.
    ${SYSTEMCTL:-systemctl} -q --root "$initdir" add-wants initrd.target cryptpilot-initrd.service \
        || _fail "cryptpilot-initrd.service cannot be enabled"
    # cryptpilot_boot/images/startup.py looks for each of these
    for unit in systemd-fsck-root systemd-fsck@ systemd-makefs@ systemd-mkswap@ systemd-growfs@; do
        _drop_in "$unit" cryptpilot-shutdown.conf
    done
    _drop_in systemd-hibernate-resume cryptpilot-resume.conf
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

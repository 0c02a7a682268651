#!/bin/bash
# A service of the system that a key provider needs, in the image.
# A part of module-setup.sh, which has what is used here and not defined.

# shellcheck disable=SC2154  # dracut sets these, and module-setup.sh sets _agent

# Installs a service that provides a key, or attests this machine for that: its unit with all drop-ins, its programs, and
# the files below /etc that its command line or EnvironmentFile names. Its dependencies are left out, since most are in no
# image or wait for a volume. It starts with the agent, and waits for the network only.
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
        # a line that ends in a backslash continues in the next one that is not a comment; see systemd.syntax(7)
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
        [[ ${words[*]} ]] || continue # an empty one resets the list
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

# Prints a unit's file and its drop-ins.
_with_drop_ins() {
    local conf
    cat "$dracutsysrootdir$1"
    for conf in "$dracutsysrootdir"{"$systemdsystemunitdir",/usr/local/lib/systemd/system,/etc/systemd/system}/"$2.d"/*.conf; do
        [[ ! -f $conf ]] || { echo && cat "$conf"; }
    done
}

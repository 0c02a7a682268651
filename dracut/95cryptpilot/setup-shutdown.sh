#!/bin/bash
# What the agent keeps in memory for the machine's shutdown.
# A part of module-setup.sh, which has what is used here and not defined.

# shellcheck disable=SC2154  # dracut sets these, and module-setup.sh sets _agent

# Puts into the image what the agent keeps in memory for the shutdown, see cryptpilot_boot/system/exitrd.py. systemd runs
# it, so an image for a system without systemd does not need it.
_keep_for_shutdown() {
    local program paths programs=("$systemdutildir/systemd-shutdown")
    [[ -x $dracutsysrootdir${programs[0]} ]] || return 0
    ! program=$(find_binary kexec) || programs+=("$program")
    mapfile -t paths < <(_libraries "${programs[@]}")
    inst_multiple "${programs[@]}" "${paths[@]}" || _fail "what the machine is turned off with is missing"
    printf '%s\n' "${programs[@]}" "${paths[@]}" > "$initdir$_agent/shutdown.files" \
        || _fail "what the machine is turned off with cannot be written down"
}

# Prints the libraries of programs, the loader included: those that ldd has a path for, and those that the programs load
# while they run, with their libraries.
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

# Prints the libraries that a program opens by name while it runs, if they are installed. systemd has their names in an
# ELF note of its programs: systemd-shutdown of version 262 unmounts nothing without libmount.
_loaded_later() {
    local name directory
    while read -r name; do
        # shellcheck disable=SC2154  # dracut's own: where it looks for libraries itself
        for directory in $libdirs; do
            [[ -e $dracutsysrootdir$directory/$name ]] && echo "$directory/$name" && break
        done
    done < <(grep -ao '"soname":\[[^]]*\]' "$dracutsysrootdir$1" | grep -o '"lib[^"]*' | tr -d '"')
}

#!/bin/bash
# What a person at the console gets: no shell, or a question.
# A part of module-setup.sh, which has what is used here and not defined.

# shellcheck disable=SC2154  # dracut sets these, and module-setup.sh sets _agent

# A failed boot gives no root shell on the console; see cryptpilot-no-shell.sh. dracut has a hook before each of its
# shells, with systemd and without. The other shells are units.
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

# Installs the programs by which systemd asks a person on each console. dracut's modules for plymouth have those for the
# boot screen.
_ask_on_consoles() {
    local unit=systemd-ask-password-console
    inst_multiple systemd-ask-password systemd-tty-ask-password-agent || _fail "systemd-ask-password is missing"
    inst_multiple "$systemdsystemunitdir/$unit.path" "$systemdsystemunitdir/$unit.service" || _fail "$unit is missing"
    ${SYSTEMCTL:-systemctl} -q --root "$initdir" add-wants sysinit.target "$unit.path" \
        || _fail "$unit.path cannot be enabled"
}

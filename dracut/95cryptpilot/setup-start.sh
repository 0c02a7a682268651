#!/bin/bash
# What starts the agent in the image, with systemd and without.
# A part of module-setup.sh, which has what is used here and not defined.

# shellcheck disable=SC2154  # dracut sets these, and module-setup.sh sets _agent

_start_by_systemd() {
    local unit
    inst_simple "$moddir/cryptpilot-initrd.service" "$systemdsystemunitdir/cryptpilot-initrd.service" \
        || _fail "cryptpilot-initrd.service is missing"
    # systemd ignores a wants entry that is not a symbolic link; systemctl makes one. dracut 051 has no $SYSTEMCTL.
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
    # the agent knows by this file that it is in an initrd; dracut 106 leaves it to systemd's modules
    [[ -e $initdir/etc/initrd-release ]] || ln -s ../usr/lib/initrd-release "$initdir/etc/initrd-release"
}

_drop_in() {
    inst_simple "$moddir/$2" "/etc/systemd/system/$1.service.d/$2" || _fail "$2 is missing"
}

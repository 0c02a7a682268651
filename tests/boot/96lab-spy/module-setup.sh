#!/bin/bash
# Watches the processes of the initrd for a test; see lab-spy.sh.
# shellcheck disable=SC2154  # dracut sets initdir, moddir, systemdsystemunitdir

# called by dracut
check() {
    return 255
}

# called by dracut
depends() {
    echo bash
}

# called by dracut
install() {
    inst_simple "$moddir/lab-spy.sh" /usr/bin/lab-spy
    inst_simple "$moddir/lab-spy.service" "$systemdsystemunitdir/lab-spy.service"
    $SYSTEMCTL -q --root "$initdir" add-wants initrd.target lab-spy.service
}

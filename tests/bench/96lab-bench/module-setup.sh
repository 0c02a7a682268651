#!/bin/bash
# Times the opening of volumes in an initrd for the bench; see lab-bench.sh.
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
    inst_multiple cat cp cryptsetup journalctl mkdir poweroff sleep sync systemctl tar udevadm
    inst_simple "$moddir/lab-bench.sh" /usr/local/sbin/lab-bench
    inst_simple "$moddir/lab-watch.service" "$systemdsystemunitdir/lab-watch.service"
    inst_simple "$moddir/lab-bench.service" "$systemdsystemunitdir/lab-bench.service"
    $SYSTEMCTL -q --root "$initdir" add-wants initrd.target lab-watch.service lab-bench.service
}

#!/bin/bash
# Stands in for the module of that name of kdump-utils: it is what mkdumprd asks dracut for, and a crash dump's image is
# known by it.
# shellcheck disable=SC2154  # dracut sets initdir

# called by dracut
check() {
    return 255
}

# called by dracut
depends() {
    echo base
}

# called by dracut
install() {
    : > "$initdir/etc/kdump.conf"
}

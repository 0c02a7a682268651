#!/bin/sh
# When an emergency shell is left, dracut begins again, and would have NetworkManager's connections made once more from
# the kernel command line, with new UUIDs. The device that is in use would then name one that is not there any more, and
# the booted system's NetworkManager leaves such a device as it is, without a name server and without a new lease.

# shellcheck disable=SC2154 # dracut's own, which runs this in its shell
for made in /run/NetworkManager/system-connections/*; do
    [ ! -e "$made" ] || rm -f "$hookdir"/cmdline/*-nm-config.sh
done
unset made

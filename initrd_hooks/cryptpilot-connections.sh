#!/bin/sh
# When a user leaves an emergency shell, dracut starts again. It would make NetworkManager's connections again from the
# kernel command line, with new UUIDs. The device in use would then name a connection that no longer exists. The booted
# system's NetworkManager leaves such a device as it is, without a name server and without a new lease.

# shellcheck disable=SC2154 # dracut's own, which runs this in its shell
for made in /run/NetworkManager/system-connections/*; do
    [ ! -e "$made" ] || rm -f "$hookdir"/cmdline/*-nm-config.sh
done
unset made

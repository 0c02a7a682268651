#!/bin/sh
# Installs what building and testing need on a Debian 12 machine; "setup.sh packages": only what packages are built with.
# Says nothing and does nothing when all is there.
set -eu

python=${PYTHON:-/usr/bin/python3}
packages='python3 python3-venv binutils git make rpm'
if [ "${1-}" != packages ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "run this as root (sudo make ...): real disks and real boots need it, and so do the packages for them" >&2
        exit 1
    fi
    packages="$packages
        gcc libc6-dev shellcheck man-db groff-base bash-completion
        qemu-system-x86 user-mode-linux mmdebstrap
        cryptsetup-bin e2fsprogs iproute2 dnsmasq-base cpio zstd kmod systemd-sysv qrencode
        dnf createrepo-c
    "
fi

missing=
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' ||
        missing="$missing $package"
done
# PyInstaller needs Python as a shared library, which Debian packages apart and by version.
if [ -x "$python" ]; then
    libpython=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LDLIBRARY"))')
    ls /usr/lib/*/"$libpython".* >/dev/null 2>&1 || missing="$missing libpython3-dev"
else
    missing="$missing libpython3-dev"
fi
[ "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "packages are missing; as root: apt-get install$missing" >&2
    exit 1
fi

echo "installing:$missing"
apt-get update --quiet=2
# shellcheck disable=SC2086  # a list
DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $missing >/dev/null

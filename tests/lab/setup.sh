#!/bin/sh
# setup.sh [build | packages]: installs what building and testing need on a Debian 12 machine; with a word, only what
# building, or building packages, needs. Says nothing and does nothing when all is there.
set -eu

packages='python3 python3-venv binutils ca-certificates debian-archive-keyring git make perl'
case ${1-} in
    build) ;;
    packages) packages="$packages rpm" ;;
    *)
        if [ "$(id -u)" -ne 0 ]; then
            echo "run this as root (sudo make ...): real disks and real boots need it, and so do the packages for them" >&2
            exit 1
        fi
        packages="$packages rpm
            gcc libc6-dev shellcheck man-db groff-base bash-completion zsh
            qemu-system-x86 user-mode-linux mmdebstrap
            cryptsetup-bin e2fsprogs xfsprogs btrfs-progs fdisk qemu-utils ovmf swtpm tpm2-tools libtss2-tcti-swtpm0 mtools pesign
            systemd-boot-efi sbsigntool iproute2 dnsmasq-base cpio zstd kmod systemd-sysv qrencode
            dnf createrepo-c
        "
        ;;
esac
# Another distribution: docs/packaging.md says what it takes there.
command -v dpkg-query >/dev/null || exit 0

missing=
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' ||
        missing="$missing $package"
done
[ "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "packages are missing; as root: apt-get install$missing" >&2
    exit 1
fi

echo "installing:$missing"
apt-get update --quiet=2
# shellcheck disable=SC2086  # a list
DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $missing >/dev/null

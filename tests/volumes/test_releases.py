"""The volume tool on each Debian release: the one bundle, with the release's cryptsetup, mkfs and C library."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.tree import RELEASES, in_chroot
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

CRYPTSETUP = {"bullseye": "2.3", "bookworm": "2.6", "trixie": "2.7"}
WITH_INTEGRITY = {"data2", "data3"}
SIZE = 384 << 20
"""Bytes of a disk: XFS of Debian 13 takes none below 300 MiB."""


@pytest.mark.parametrize("release", RELEASES)
def test_a_volume_of_each_kind_on_each_release(site: machines.Site, lab: None, tmp_path: Path, release: str) -> None:  # noqa: ARG001
    tree = machines.installed_tree(tmp_path / "tree", release=release)
    assert f"cryptsetup {CRYPTSETUP[release]}." in in_chroot(tree, ["cryptsetup", "--version"])
    kinds = {"data0": ("", "ext4"), "data1": ("kms", "ext4"), "data2": ("kms", "xfs"), "data3": ("", "ext4")}
    machines.configure(
        tree, {name: _volume_file(site, name, *kind, name in WITH_INTEGRITY) for name, kind in kinds.items()}
    )
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in kinds]
    site.behave("ok")
    site.forget_requests()
    result = machines.run_with_kms(site, tree, SCRIPT, disks=disks, timeout=180).check()
    before, after = (json.loads(text) for text in re.findall(r"^\[$.*?^\]$", result.stdout, re.MULTILINE | re.DOTALL))
    assert [volume["status"] for volume in before] == [
        "ready-to-open",
        "requires-init",
        "requires-init",
        "ready-to-open",
    ]
    assert [volume["status"] for volume in after] == ["opened"] * 4
    assert re.findall(r"^kept \d$", result.stdout, re.MULTILINE) == ["kept 1", "kept 2"]
    assert set(re.findall(r"^(data\d)_dif: ", result.stdout, re.MULTILINE)) == WITH_INTEGRITY
    assert "INTEGRITY AEAD ERROR" not in result.stdout
    assert (
        "grows: /dev/mapper/grows grew from 48 MiB to 80 MiB; its ext4 fills it\n/run/grows/file: OK\n" in result.stdout
    )
    assert re.search(
        r"^0 163840 crypt aes-xts-plain64 .* allow_discards sector_size:4096$", result.stdout, re.MULTILINE
    )
    # for init and for two opens, of two volumes that share a secret
    assert [request["outcome"] for request in site.requests()] == ["ok"] * 3


def _volume_file(site: machines.Site, name: str, provider: str, makefs: str, integrity: bool) -> str:
    device = f"/dev/disk/by-id/virtio-{name}"
    file = machines.volume_file(site, volume=name, dev=device, makefs=makefs)
    if not provider:
        file = f'volume = "{name}"\ndev = "{device}"\nauto_open = true\nmakefs = "{makefs}"\n[encrypt.otp]\n'
    return file.replace("auto_open = true\n", f"integrity = {str(integrity).lower()}\n")


SCRIPT = """
cryptpilot show --json
cryptpilot init data1 data2 --yes
cryptpilot open data0 data1 data2 data3
cryptpilot show --json
dmsetup table
for name in data0 data1 data2 data3; do
    mkdir /run/$name; mount /dev/mapper/$name /run/$name
    echo "kept ${name#data}" > /run/$name/file
    umount /run/$name
done
cryptpilot close data0 data1 data2 data3
cryptpilot open data1 data2 data0 data3
for name in data0 data1 data2 data3; do
    mount /dev/mapper/$name /run/$name
    if [ -e /run/$name/file ]; then cat /run/$name/file; fi
    umount /run/$name
done
cryptpilot close data0 data1 data2 data3
# a disk that is enlarged while it is in use
truncate -s 64M /run/grows.img; disk=$(losetup -f --show /run/grows.img)
head -c 64 /dev/urandom > /run/key
printf '%s\\n' 'volume = "grows"' "dev = \\"$disk\\"" 'makefs = "ext4"' 'discard = true' '[encrypt.exec]' \\
    'command = "cat"' 'args = ["/run/key"]' > /etc/cryptpilot/volumes/grows.toml
cryptpilot init grows --yes; cryptpilot open grows
mkdir /run/grows; mount /dev/mapper/grows /run/grows; head -c 8M /dev/urandom > /run/grows/file
sha256sum /run/grows/file > /run/sum
truncate -s 96M /run/grows.img; losetup -c $disk
cryptpilot resize grows
sha256sum --check /run/sum
dmsetup table grows
umount /run/grows; e2fsck -fn /dev/mapper/grows
dmesg
"""


# The volumes of other versions, by what cryptsetup was told beside the passphrase. Those of the existing Rust
# implementation have libcryptsetup's defaults: Argon2id; Argon2i before cryptsetup 2.4; PBKDF2 where FIPS is on, with
# the costs it measured; sectors of 512 bytes before 2.4; with integrity, sectors of 4096 bytes.
_FAST = "--pbkdf-memory=65536 --pbkdf-force-iterations=4 --pbkdf-parallel=2"
OTHERS = {
    "ours": "--pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --sector-size=4096",
    "rust": f"--pbkdf=argon2id {_FAST}",
    "older": f"--pbkdf=argon2i {_FAST} --sector-size=512",
    "fips": "--pbkdf=pbkdf2 --pbkdf-force-iterations=2000000 --sector-size=512",
    "tags": f"--pbkdf=argon2id {_FAST} --sector-size=4096 --integrity=hmac-sha256",
}


def test_volumes_of_other_versions_with_the_mark_open(tree: Path, tmp_path: Path) -> None:
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", 64 << 20), name) for name in OTHERS]
    made = "".join(
        machines.exec_volume(disk.name, disk.device, integrity=disk.name == "tags")
        + f"""
cryptsetup luksFormat --batch-mode --type=luks2 --cipher=aes-xts-plain64 --key-size=512 {OTHERS[disk.name]} \\
    --key-file=/run/key {disk.device}
cryptsetup open --key-file=/run/key {disk.device} making; mkfs.ext4 -q /dev/mapper/making
mount /dev/mapper/making /mnt; echo "kept by {disk.name}" > /mnt/file; umount /mnt; cryptsetup close making
cryptsetup config --subsystem=cryptpilot {disk.device}
"""
        for disk in disks
    )
    names = " ".join(OTHERS)
    script = f"""{machines.NO_VOLUMES}{made}
cryptpilot show --json
for name in {names}; do
    cryptpilot recovery-key $name > /run/$name.key 2> /dev/null
    cryptpilot header backup $name /run/$name.header > /dev/null
    cryptpilot header restore $name /run/$name.header --yes > /dev/null
done
cryptpilot open {names} > /dev/null
for name in {names}; do mount /dev/mapper/$name /mnt; cat /mnt/file; umount /mnt; done
cryptpilot close {names} > /dev/null
for name in {names}; do cryptpilot open $name --recovery-key < /run/$name.key; done
"""
    modules = ["algif_skcipher"]
    result = run_uml(tree, script, disks=disks, modules=modules, timeout=240).check()
    shown, _, rest = result.stdout.partition("\n]\n")
    assert [volume["status"] for volume in json.loads(shown + "]")] == ["ready-to-open"] * len(OTHERS)
    opened = [f"{name}: /dev/mapper/{name} is open" for name in OTHERS]
    assert rest.splitlines() == [*(f"kept by {name}" for name in OTHERS), *opened]

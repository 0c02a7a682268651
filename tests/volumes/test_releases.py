"""The volume tool on each Debian release: its own build, the release's cryptsetup, mkfs and C library."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.tree import PYTHONS, in_chroot

if TYPE_CHECKING:
    from pathlib import Path

CRYPTSETUP = {"bullseye": "2.3", "bookworm": "2.6", "trixie": "2.7"}
NO_INTEGRITY = {"bullseye"}
SIZE = 384 << 20
"""Bytes of a disk: XFS of Debian 13 takes none below 300 MiB."""


@pytest.mark.parametrize("release", PYTHONS)
def test_a_volume_of_each_kind_on_each_release(site: machines.Site, lab: None, tmp_path: Path, release: str) -> None:  # noqa: ARG001
    tree = machines.installed_tree(tmp_path / "tree", release=release)
    assert f"cryptsetup {CRYPTSETUP[release]}." in in_chroot(tree, ["cryptsetup", "--version"])
    kinds = {"data0": ("", "ext4"), "data1": ("kms", "ext4"), "data2": ("kms", "xfs"), "data3": ("", "ext4")}
    with_integrity = {"data2", "data3"} if release not in NO_INTEGRITY else set()
    machines.configure(
        tree, {name: _volume_file(site, name, *kind, name in with_integrity) for name, kind in kinds.items()}
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
    assert set(re.findall(r"^(data\d)_dif: ", result.stdout, re.MULTILINE)) == with_integrity
    assert "INTEGRITY AEAD ERROR" not in result.stdout
    # for init and for two opens, of two volumes that share a secret
    assert [request["outcome"] for request in site.requests()] == ["ok"] * 3


def test_a_cryptsetup_that_is_too_old_for_integrity_is_told_before_anything_is_done(
    site: machines.Site,
    lab: None,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    tree = machines.installed_tree(tmp_path / "tree", release="bullseye")
    machines.configure(
        tree,
        {
            "data0": _volume_file(site, "data0", "", "ext4", True),
            "data1": _volume_file(site, "data1", "kms", "ext4", True),
        },
    )
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in ("data0", "data1")]
    before = [sha256(disk.path) for disk in disks]
    site.forget_requests()
    result = machines.run_with_kms(
        site, tree, "! cryptpilot open data0\n! cryptpilot init data1 --yes", disks=disks
    ).check()
    for name in ("data0", "data1"):
        said = f"cryptpilot: error: {name}: cryptsetup 2.3.7 is too old for a volume with integrity"
        assert said in result.stderr
    assert [sha256(disk.path) for disk in disks] == before
    assert site.requests() == []


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
dmesg
"""

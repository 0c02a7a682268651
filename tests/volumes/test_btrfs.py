"""Why no root on btrfs is converted: the kernel can take a disk of the host in place of the volume it is told to mount.

See docs/dev/decisions/48-no-btrfs-root.md. Should this fail with another kernel, read that page again.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.disk import blank_disk
from tests.lab.uml import run_uml

MIB = 1 << 20
UUID = "4b0d3c5e-2f57-4c59-8d57-0a4e5f0f4b11"
SCRIPT = f"""
mkdir /run/m
echo secret > /run/key
# the volume, with the file system of an ordinary image in it, whose UUID the host knows
cryptsetup luksFormat --batch-mode --type=luks2 --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file=/run/key \\
    /dev/disk/by-id/virtio-volume
cryptsetup open --key-file=/run/key /dev/disk/by-id/virtio-volume root
mkfs.btrfs -q -U {UUID} /dev/mapper/root > /dev/null
mount /dev/mapper/root /run/m; echo "of the volume" > /run/m/file; umount /run/m
cryptsetup close root; btrfs device scan --forget
# the host's disk: of the same UUID, with the number of another device, and changed more often
one=/dev/disk/by-id/virtio-other; two=/dev/disk/by-id/virtio-host
mkfs.btrfs -q -f -U {UUID} -m single -d single $one $two > /dev/null
btrfs device scan $one $two > /dev/null
mount $one /run/m; btrfs device remove $one /run/m
for number in $(seq 5); do echo "of the host" > /run/m/file; sync; done
umount /run/m; btrfs device scan --forget
# the machine boots
cryptsetup open --key-file=/run/key /dev/disk/by-id/virtio-volume root
show() {{ mount -o ro /dev/mapper/root /run/m; cat /run/m/file; umount /run/m; btrfs device scan --forget; }}
echo "alone: $(show)"
# as udev does it with each disk that is there: 64-btrfs.rules
btrfs device scan $two > /dev/null
echo "announced: $(show)"
"""


@pytest.mark.matrix
@pytest.mark.needs("mkfs.btrfs")
def test_a_disk_of_the_host_is_mounted_in_place_of_a_volume(tmp_path: Path) -> None:
    disks = [blank_disk(tmp_path / f"{name}.img", 300 * MIB) for name in ("volume", "other", "host")]
    said = run_uml(Path("/"), SCRIPT, disks=disks, modules=["btrfs"], timeout=600).check().stdout
    assert said.splitlines()[-2:] == ["alone: of the volume", "announced: of the host"]

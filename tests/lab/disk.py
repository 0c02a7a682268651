"""A disk of a machine, and the name by which both kinds of machine know it."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = re.compile(r"[A-Za-z0-9._-]{1,20}")
"""What a virtio disk's serial number can be."""


@dataclass(frozen=True)
class Disk:
    """An image file given to a machine as a disk.

    `name` is what makes it findable: QEMU passes it as the disk's serial number, and the user-mode machine makes
    the same symbolic link as udev would, so that one configuration file fits both.

    With `nvme` it is one of QEMU's NVMe disks, as the cloud's are: /dev/nvme0n1 is the first of them.
    """

    path: Path
    name: str
    readonly: bool = False
    nvme: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"disk name {self.name!r}: want 1 to 20 letters, digits, dots, underscores or dashes")

    @property
    def device(self) -> str:
        """Return the path of the disk inside the machine."""
        return f"/dev/disk/by-id/{'nvme-QEMU_NVMe_Ctrl_' if self.nvme else 'virtio-'}{self.name}"


def blank_disk(path: Path, size: int) -> Path:
    """Make an image file of `size` bytes that takes no room until it is written to."""
    with path.open("wb") as image:
        image.truncate(size)
    return path


def partition(path: Path, sizes: Sequence[int]) -> Path:
    """Write a partition table onto an empty image: up to four partitions of so many bytes, each on a whole MiB.

    It is an MBR: a boot sector with an entry of 16 bytes a partition at byte 446.
    """
    start = 1 << 20
    entries = []
    for size in sizes:
        # as is the custom, no addresses by cylinder, head and sector; 0x83: Linux
        no_chs = b"\xfe\xff\xff"
        entries.append(struct.pack("<B3sB3sII", 0, no_chs, 0x83, no_chs, start // 512, size // 512))
        start += -(-size // (1 << 20)) * (1 << 20)
    if len(entries) > 4 or start > path.stat().st_size:
        raise ValueError(f"{len(entries)} partitions that end at {start} bytes: {path} has no room for them")
    with path.open("r+b") as image:
        image.seek(446)
        image.write(b"".join(entries).ljust(64, b"\0") + b"\x55\xaa")
    return path


def sha256(path: Path) -> str:
    """Return the digest of a disk's content, to show that nothing touched it."""
    digest = hashlib.sha256()
    with path.open("rb") as image:
        while block := image.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def luks_uuid(disk: Disk) -> str:
    """Return the UUID of a disk's LUKS header."""
    with disk.path.open("rb") as file:
        header = file.read(4096)
    assert header.startswith(b"LUKS\xba\xbe")
    return header[168:208].rstrip(b"\0").decode()

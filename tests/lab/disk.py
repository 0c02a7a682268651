"""A disk of a machine, and the name by which both kinds of machine know it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9._-]{1,20}")
"""What a virtio disk's serial number can be."""


@dataclass(frozen=True)
class Disk:
    """An image file given to a machine as a disk.

    `name` is what makes it findable: QEMU passes it as the disk's serial number, and the user-mode machine makes
    the same symbolic link as udev would, so that one configuration file fits both.
    """

    path: Path
    name: str
    readonly: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"disk name {self.name!r}: want 1 to 20 letters, digits, dots, underscores or dashes")

    @property
    def device(self) -> str:
        """Return the path of the disk inside the machine."""
        return f"/dev/disk/by-id/virtio-{self.name}"


def blank_disk(path: Path, size: int) -> Path:
    """Make an image file of `size` bytes that takes no room until it is written to."""
    with path.open("wb") as image:
        image.truncate(size)
    return path


def sha256(path: Path) -> str:
    """Return the digest of a disk's content, to show that nothing touched it."""
    digest = hashlib.sha256()
    with path.open("rb") as image:
        while block := image.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""The part of its device that a volume does not use after the disk was enlarged."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.system import block, cryptsetup, integrity, luks_data, mappings, partition

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.system.luks_header import Header

_WORTH = 16 << 20  # bytes behind a partition; less is not reported, since programs leave some for alignment
_STEP = 1 << 20  # bytes; dm-integrity itself leaves less than that unused


@dataclasses.dataclass(frozen=True)
class Growth:
    """What a volume could still use, in bytes.

    unused: of its device; negative if the device is too small. unpartitioned: of its disk, behind the partition that is
    its device. fixed: whether the volume keeps its size, because it has integrity.
    """

    unused: int
    unpartitioned: int
    fixed: bool


def find(volume: Volume, header: Header) -> Growth:
    """Return how much of its device a persistent volume does not use.

    header: a copy of the one on the device. A closed volume without integrity takes the whole device at the next open.
    Raises DeviceError.
    """
    device = block.look_up(volume.dev)
    data = luks_data.find(header)
    mapping = mappings.find(volume.volume)
    if data.integrity:
        left = device.size - integrity.used(device.node, data.offset)
        unused = left if left >= _STEP else 0
    elif mapping and not mappings.find(cryptsetup.below(volume.volume)):
        unused = data.room(device.size) - mappings.size(mapping)
    else:
        unused = 0
    free = partition.free_behind(device)
    return Growth(unused, free if free >= _WORTH else 0, data.integrity)


def describe(volume: Volume, growth: Growth) -> str:
    """Say what a volume could still use, and how to grow it; "" for nothing."""
    larger = block.readable(growth.unused)
    if growth.unused > 0 and growth.fixed:
        return (
            f"its device is {larger} larger than the volume, which has integrity and keeps its size; to use all of the"
            " device, copy the data to a new volume"
        )
    if growth.unused > 0:
        return f"its device is {larger} larger than the volume; grow it: cryptpilot resize {volume.volume}"
    if growth.unused < 0:
        missing = block.readable(-growth.unused)
        return f"its device is {missing} smaller than the volume: what was there cannot be read; enlarge it again"
    if growth.unpartitioned:
        behind = f"its disk has {block.readable(growth.unpartitioned)} free behind the partition {volume.dev}"
        if growth.fixed:
            return f"{behind}, which a volume with integrity cannot take"
        return f"{behind}; grow the partition (growpart, parted), then: cryptpilot resize {volume.volume}"
    return ""

"""Partitions, and the sectors of the disks they are on, as the kernel has them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError

if TYPE_CHECKING:
    from cryptpilot_boot.system.block import Device

_SECTOR = 512
# Source: linux/blkpg.h. The request: operation, flags, length and address of the partition; of that: where it begins
# and how long it is in bytes, its number, and two names that are not used.
_BLKPG = 0x1269
_RESIZE = 3
_REQUEST = "@iiiP"
_PARTITION = "@qqi64s64s0q"


def is_partition(device: Device) -> bool:
    """Tell whether a device is part of another device, by the partition table of the other."""
    return (_node(device) / "partition").exists()


def sector_size(device: Device) -> int:
    """Return the bytes of the least that can be written to a device: its logical sectors."""
    return _number(_disk(device) / "queue/logical_block_size") or _SECTOR


def free_behind(device: Device) -> int:
    """Return the free bytes of the disk behind a partition; 0 for a device that is not a partition."""
    if not is_partition(device):
        return 0
    here = _node(device)
    end = _number(here / "start") + _number(here / "size")
    others = (_number(other.parent / "start") for other in here.parent.glob("*/partition"))
    return _SECTOR * max(0, min([_number(here.parent / "size"), *(start for start in others if start >= end)]) - end)


def shorten(device: Device, size: int) -> None:
    """Make the kernel use only `size` bytes of a partition; the disk and its table stay as they are.

    Raises DeviceError.
    """
    here = _node(device)
    start, number = _SECTOR * _number(here / "start"), _number(here / "partition")
    wanted = ctypes.create_string_buffer(struct.pack(_PARTITION, start, size, number, b"", b""))
    request = struct.pack(_REQUEST, _RESIZE, 0, len(wanted), ctypes.addressof(wanted))
    try:
        descriptor = os.open(f"/dev/{here.parent.name.replace('!', '/')}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _BLKPG, request)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceError(
            f"{device.path} has {device.size} bytes, and the kernel refuses to use only {size}: {error.strerror}",
            "give the partition a size that is a multiple of 4096 bytes: there are no data at its end",
        ) from None


def _node(device: Device) -> Path:
    return Path("/sys/dev/block", device.number).resolve()


def _disk(device: Device) -> Path:
    return _node(device).parent if is_partition(device) else _node(device)


def _number(attribute: Path) -> int:
    """Return a number in sysfs, 0 without one."""
    try:
        return int(attribute.read_text())
    except (OSError, ValueError):
        return 0

"""The size of a device that a volume is made on, and of its sectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.config.model import SECTOR_SIZES
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, luks_header, mkfs, partition

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume

# Sectors of 4096 bytes if the size of the device is a multiple; dm-integrity rounds the size down itself.
_SMALL_SECTOR, _SECTOR = SECTOR_SIZES
# What dm-integrity uses: 32 bytes of tags for each sector, a superblock, its journal, rounding. One share of the
# device, as a divisor, and a fixed number of bytes.
_INTEGRITY_SHARE = {_SECTOR: 50, _SMALL_SECTOR: 12}
_INTEGRITY_BYTES = {_SECTOR: 512 << 10, _SMALL_SECTOR: 2 << 20}


def require_makable(volume: Volume, device: block.Device) -> None:
    """Raise CryptpilotError if the device is too small for the volume, or a program is missing."""
    if volume.makefs:
        mkfs.require(volume.makefs)
    sector = _require_sector_size(volume, device)
    needed = device_size(mkfs.KINDS[volume.makefs].minimum if volume.makefs else _SECTOR, volume, sector)
    if device.size < needed:
        raise DeviceError(
            f"{volume.dev} is too small: it has {block.readable(device.size)}, and"
            f" {volume.makefs or 'a volume'}{' with integrity' if volume.integrity else ''} needs"
            f" {block.readable(needed)}",
            'check "dev", or attach a larger disk',
        )


def device_size(content: int, volume: Volume, sector_size: int) -> int:
    """Return the bytes that a device needs for a volume of `content` bytes. sector_size: of the volume, in bytes."""
    needed = luks_header.SIZE + content
    if volume.integrity:
        needed += needed // _INTEGRITY_SHARE[sector_size] + _INTEGRITY_BYTES[sector_size]
    return needed


def sector_size(volume: Volume, device: block.Device) -> int:
    """Return the sector size of a new volume, in bytes."""
    if volume.sector_size:
        return volume.sector_size
    return _SECTOR if volume.integrity or device.size % _SECTOR == 0 else _SMALL_SECTOR


def _require_sector_size(volume: Volume, device: block.Device) -> int:
    """Return what `sector_size` does. Raises DeviceError if a volume on the device cannot have it."""
    wanted = sector_size(volume, device)
    physical = partition.sector_size(device)
    if wanted < physical:
        raise DeviceError(
            f"{volume.dev} has sectors of {physical} bytes, and {volume.source} says sector_size = {wanted}",
            "a volume cannot have smaller sectors than its disk: remove sector_size, or attach a disk that has them",
        )
    if not volume.integrity and device.size % wanted:
        raise DeviceError(
            f"{volume.dev} has {device.size} bytes, no multiple of sector_size = {wanted} in {volume.source}",
            f"remove sector_size, or set it to {_SMALL_SECTOR}",
        )
    return wanted

"""The size of a device that a volume is made on, and of its sectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.config.model import SECTOR_SIZES
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, luks_header, mkfs, partition

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume

# aes-xts in 4096-byte sectors where the device consists of such; dm-integrity rounds down by itself.
_SMALL_SECTOR, _SECTOR = SECTOR_SIZES
# dm-integrity: 32 bytes of tag a sector, its superblock and its journal, and rounding: a share of the device, and some.
_INTEGRITY_SHARE = {_SECTOR: 50, _SMALL_SECTOR: 12}
_INTEGRITY_BYTES = {_SECTOR: 512 << 10, _SMALL_SECTOR: 2 << 20}


def require_makable(volume: Volume, device: block.Device) -> None:
    """Raise CryptpilotError when what is to be made on the device needs more room, or a program that is missing."""
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
    """Return how many bytes a device has to have for a volume that holds so many. sector_size: bytes, of the volume."""
    needed = luks_header.SIZE + content
    if volume.integrity:
        needed += needed // _INTEGRITY_SHARE[sector_size] + _INTEGRITY_BYTES[sector_size]
    return needed


def sector_size(volume: Volume, device: block.Device) -> int:
    """Return the bytes of a sector of a volume that is to be made."""
    if volume.sector_size:
        return volume.sector_size
    return _SECTOR if volume.integrity or device.size % _SECTOR == 0 else _SMALL_SECTOR


def _require_sector_size(volume: Volume, device: block.Device) -> int:
    """Return what `sector_size` does; raise DeviceError unless a volume on the device can have that."""
    wanted = sector_size(volume, device)
    physical = partition.sector_size(device)
    if wanted < physical:
        raise DeviceError(
            f"{volume.dev} has sectors of {physical} bytes, and {volume.source} says sector_size = {wanted}",
            "a volume on it cannot have smaller ones: remove sector_size, or attach a disk that has such",
        )
    if not volume.integrity and device.size % wanted:
        raise DeviceError(
            f"{volume.dev} has {device.size} bytes, no multiple of sector_size = {wanted} in {volume.source}",
            f"remove sector_size, or set it to {_SMALL_SECTOR}",
        )
    return wanted

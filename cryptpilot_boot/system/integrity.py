"""dm-integrity's superblock: how much of a device it uses.

It is laid out once, when the volume is made, and no program makes it larger.

Source: linux/drivers/md/dm-integrity.c, struct superblock, calculate_journal_section_size, calculate_device_limits.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cryptpilot_boot.errors import DeviceError

_SECTOR = 512
# magic, version, log2_interleave_sectors, integrity_tag_size, journal_sections, provided_data_sectors, flags,
# log2_sectors_per_block
_SUPERBLOCK = struct.Struct("<8sBBHLQLB")
_MAGIC = b"integrt\0"
_SUPERBLOCK_SECTORS = 8
_JOURNAL_SECTOR_DATA = 504  # bytes of a sector of the journal that hold entries
_JOURNAL_BLOCK_SECTORS = 8
_PADDING_SECTORS = 8  # to whose multiple the room for tags is rounded up
# More than these no kernel takes; the superblock is the disk's word.
_MOST_SHIFT = 31


def used(device: str, offset: int) -> int:
    """Return how many bytes from its beginning on a device with integrity makes use of.

    offset: bytes before the superblock. Raises DeviceError without a valid one.
    """
    try:
        with Path(device).open("rb", buffering=0) as source:
            source.seek(offset)
            content = source.read(_SUPERBLOCK.size)
    except OSError as error:
        raise DeviceError(f"{device}: cannot be read: {error.strerror}") from None
    return offset + _SECTOR * _sectors(device, content)


def _sectors(device: str, content: bytes) -> int:
    if len(content) != _SUPERBLOCK.size or not content.startswith(_MAGIC):
        raise DeviceError(f"{device}: there is no superblock of dm-integrity on it")
    fields: tuple[int, ...] = _SUPERBLOCK.unpack(content)[2:]
    interleave, tag, sections, provided, _, block = fields
    if not provided or interleave > _MOST_SHIFT or block > min(interleave, _JOURNAL_BLOCK_SECTORS):
        raise DeviceError(f"{device}: the superblock of dm-integrity is invalid")
    journal = _SUPERBLOCK_SECTORS + sections * _journal_section(1 << block, tag)
    areas = -(-provided // (1 << interleave))
    tags = _round_up(tag << (interleave - block), _PADDING_SECTORS * _SECTOR) // _SECTOR
    return journal + provided + areas * tags


def _journal_section(block: int, tag: int) -> int:
    """Return the sectors of a section of the journal. block: sectors of a block of data; tag: bytes of its tag."""
    entry = _round_up(8 + 8 * block + tag, 8)
    entries = _JOURNAL_SECTOR_DATA // entry * _JOURNAL_BLOCK_SECTORS
    return entries * block + _JOURNAL_BLOCK_SECTORS


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit

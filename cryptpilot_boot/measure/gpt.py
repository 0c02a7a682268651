"""What firmware measures of a partition table. Pure.

Source: UEFI specification 2.10, 5.3; TCG PC Client Platform Firmware Profile, UEFI_GPT_DATA.
"""

from __future__ import annotations

import struct

from cryptpilot_boot.errors import CryptpilotError

SECTOR = 512
NEEDED = 34 * SECTOR
"""Bytes at the beginning of a disk: protective MBR, header, 128 entries."""
_HEADER = struct.Struct("<8s4s3I4Q16sQ3I")
_SIGNATURE = b"EFI PART"
_ENTRY = 128
_MOST = 128
_TYPE = 16  # bytes of an entry: what is zero there is no partition


def measured(disk: bytes, count: int) -> bytes:
    """Return what is measured of a partition table: its header, and the entries that are partitions.

    disk: its first `NEEDED` bytes, or more. count: how many partitions there are, as read by another program. Raises
    CryptpilotError for a table that is laid out in another way than all programs do it, or that has another count.
    """
    header = disk[SECTOR : SECTOR + _HEADER.size]
    if len(disk) < NEEDED:
        raise CryptpilotError("the image is too short for a partition table")
    signature, *_, first, entries, size, _ = _HEADER.unpack(header)
    if (signature, first, size) != (_SIGNATURE, 2, _ENTRY) or entries > _MOST:
        raise CryptpilotError(
            "the partition table has an unusual layout",
            "only the layout that sfdisk writes, with 128 entries, is supported",
        )
    table = disk[first * SECTOR : first * SECTOR + entries * size]
    used = [table[at : at + size] for at in range(0, len(table), size) if any(table[at : at + _TYPE])]
    if len(used) != count:
        raise CryptpilotError(
            f"the partition table has {len(used)} entries in use, but sfdisk reads {count} partitions"
        )
    return header + struct.pack("<Q", len(used)) + b"".join(used)

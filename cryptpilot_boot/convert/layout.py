"""Where everything goes on the new disk. Pure.

Partitions stay in place, except the root and a new /boot before it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import grub, mending, naming
from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.system.partition_table import KINDS, MBR, SECTOR, Partition, Table, partuuid
from cryptpilot_boot.volume.sizes import device_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Content, InstalledDisk, Roles

BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
"""The type of a partition for GRUB in a GPT; the manual of GRUB, "BIOS installation"."""

_MIB = 1 << 20
BOOT_ROOM = 96 * _MIB
"""Bytes that /boot has to have left for each initrd, which is there twice for a moment."""
_NEW_BOOT = 1 << 30  # bytes of a /boot that gets its own partition: the size that distributions use
_TABLE_COPY = _MIB  # at the end of the disk


@dataclasses.dataclass(frozen=True)
class Layout:
    """A new disk. size: in bytes; boot: the number of the partition of /boot; sector_size: bytes of the volume's."""

    table: Table
    size: int
    boot: int
    sector_size: int


def lay_out(found: InstalledDisk, volume: Volume, boot: int | None, loaders: Roles) -> Layout:
    """Say where everything goes. boot: the partition of /boot, None for a new one. Raises CryptpilotError."""
    table, number = found.table, found.system.root
    old = table.partition(number)
    _require_apart(table, found.image.size)
    if any(one.start > old.start for one in table.partitions):
        raise refused(f"partition {number}, the root, is not the last one on the disk, and cannot grow")
    sector_size = _sector_size(volume, found.contents[number])
    start = _up(old.start * SECTOR)
    new: list[Partition] = []
    if boot is None:
        boot = _free_number(table)
        used, kernels = found.system.boot_used, len(found.system.kernels)
        size = max(_NEW_BOOT, _up(4 * used), _up(used + (kernels + 1) * BOOT_ROOM))
        new.append(_new_boot(boot, start // SECTOR, size // SECTOR, old, table))
        start += size
    inside = found.contents[number].logical
    needed = _up(device_size(inside.size if inside else old.size * SECTOR, volume, sector_size))
    if inside:
        old = dataclasses.replace(old, type=KINDS[table.label].linux)
    root = dataclasses.replace(old, start=start // SECTOR, size=needed // SECTOR)
    kept = [one for one in table.partitions if one.number != number]
    partitions = tuple(sorted([*kept, *new, root], key=lambda one: one.number))
    end = max(start + needed + _TABLE_COPY, _up(found.image.size))
    if end > KINDS[table.label].most:
        raise refused(f"the new disk has {readable(end)}, which is too large for an MBR", "give the image a GPT")
    if new and loaders.gap:
        _require_gap(partitions)
    # the root's own line of fstab is another in the new image
    texts = (
        mending.fstab(found.system.fstab, volume, "", found.swapped_to, found.root_names),
        found.system.loader_settings,
    )
    laid = naming.name(dataclasses.replace(table, partitions=partitions), number, volume, texts)
    return Layout(laid, end, boot, sector_size)


def boot_areas(table: Table, loaders: Roles) -> tuple[tuple[int, int], ...]:
    """Return the areas of the boot loader outside of partitions: start and length in bytes."""
    code = ((0, grub.BOOT_CODE),) if loaders.gap or loaders.bios else ()
    first = min((one.start for one in table.partitions), default=1)
    return (*code, (SECTOR, (first - 1) * SECTOR)) if loaders.gap else code


def _free_number(table: Table) -> int:
    free = set(KINDS[table.label].numbers) - {one.number for one in table.partitions}
    if not free:
        raise refused("/boot has to move to a partition of its own, and the table has no free number")
    return min(free)


def _new_boot(number: int, start: int, size: int, beside: Partition, table: Table) -> Partition:
    kind = KINDS[table.label].linux
    if table.label == MBR:
        return Partition(number, start, size, kind, partuuid(table.identifier, number))
    return Partition(number, start, size, kind, _uuid_of(beside, "boot"), "boot")


def _require_gap(partitions: Sequence[Partition]) -> None:
    """Raise CryptpilotError unless GRUB has room for what it installs before the first partition."""
    first = min(partitions, key=lambda one: one.start)
    if first.start * SECTOR < _MIB:
        raise refused(
            f"/boot has to move, and GRUB needs 1 MiB before the first partition, which begins at sector {first.start}",
            f"give the image a /boot of its own, or have partition {first.number} begin at 1 MiB",
        )


def _require_apart(table: Table, size: int) -> None:
    """Raise CryptpilotError for partitions that overlap, or beyond the end of the disk."""
    inorder = sorted(table.partitions, key=lambda one: one.start)
    for one, following in zip(inorder, inorder[1:]):
        if one.end > following.start:
            raise refused(f"partitions {one.number} and {following.number} overlap")
    for one in inorder:
        if one.end * SECTOR > size:
            raise refused(f"partition {one.number} ends beyond the end of the disk: the image is cut off")


def _up(size: int) -> int:
    """Return the next whole number of MiB."""
    return -(-size // _MIB) * _MIB


def _uuid_of(partition: Partition, purpose: str) -> str:
    """Return a UUID for a partition that is made beside another one: the same image gives the same."""
    import uuid  # nothing else needs it

    return str(uuid.uuid5(uuid.UUID(partition.uuid), f"cryptpilot {purpose}")).upper()


def _sector_size(volume: Volume, root: Content) -> int:
    """Return the bytes of the volume's sectors: no more than its file system can do with."""
    least = 4096 if root.block >= 4096 else 512
    if volume.sector_size and volume.sector_size > least:
        raise refused(
            f"{volume.source} says sector_size = {volume.sector_size}, and the root's {root.kind} has blocks of"
            f" {root.block} bytes",
            "remove sector_size",
        )
    return volume.sector_size or least


def written(found: InstalledDisk, laid: Layout, loaders: Roles, volume: Volume) -> int:
    """Return how many bytes are written at most."""
    system, sizes = found.system, {one.number: one.size * SECTOR for one in laid.table.partitions}
    # with tags, all of a volume is written once: what was not cannot be read
    root = sizes[system.root] if volume.integrity else device_size(system.used, volume, laid.sector_size)
    whole = sum(sizes[number] for number in (loaders.bios, loaders.esp) if number is not None)
    whole += sum(length for _, length in boot_areas(found.table, loaders))
    return root + whole + 2 * system.boot_used + BOOT_ROOM * len(system.kernels)

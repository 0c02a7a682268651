"""Where everything goes on the new disk. Pure.

Partitions stay where they are, but the root, and a new /boot before it.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.system.partition_table import ESP, SECTOR, Partition, Table
from cryptpilot_boot.volume.initialize import device_size

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Content, Found, Roles

# Types of partitions, by GUID. Source: the UEFI specification, 5.3.3; the manual of GRUB, "BIOS installation".
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
PLATFORMS = {BIOS_BOOT: "i386-pc", ESP: "x86_64-efi"}

_MIB = 1 << 20
BOOT_ROOM = 96 * _MIB
"""Bytes that /boot has to have left for each initrd, which is there twice for a moment."""
_NEW_BOOT = 1 << 30  # bytes of a /boot that gets a partition of its own: as distributions have it
_TABLE_COPY = _MIB  # at the end of the disk
_BY_UUID = re.compile(r"/dev/disk/by-partuuid/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_BY_LABEL = re.compile(r"/dev/disk/by-partlabel/([A-Za-z0-9._-]{1,36})")


@dataclasses.dataclass(frozen=True)
class Layout:
    """A new disk. size: in bytes; boot: the number of the partition of /boot; sector_size: bytes of the volume's."""

    table: Table
    size: int
    boot: int
    sector_size: int


def lay_out(found: Found, volume: Volume, boot: int | None) -> Layout:
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
        boot = min(set(range(1, 129)) - {one.number for one in table.partitions})
        used, kernels = found.system.boot_used, len(found.system.kernels)
        size = max(_NEW_BOOT, _up(4 * used), _up(used + (kernels + 1) * BOOT_ROOM))
        new.append(Partition(boot, start // SECTOR, size // SECTOR, LINUX, _uuid_of(old, "boot"), "boot"))
        start += size
    needed = _up(device_size(old.size * SECTOR, volume, sector_size))
    root = dataclasses.replace(old, start=start // SECTOR, size=needed // SECTOR)
    root = _named_partition(root, volume, table)
    kept = [one for one in table.partitions if one.number != number]
    partitions = tuple(sorted([*kept, *new, root], key=lambda one: one.number))
    end = max(start + needed + _TABLE_COPY, _up(found.image.size))
    return Layout(dataclasses.replace(table, partitions=partitions), end, boot, sector_size)


def _named_partition(root: Partition, volume: Volume, table: Table) -> Partition:
    """Return the root's partition under the name by which the volume's file knows it."""
    by_uuid, by_label = _BY_UUID.fullmatch(volume.dev), _BY_LABEL.fullmatch(volume.dev)
    others = [one for one in table.partitions if one.number != root.number]
    if by_uuid and by_uuid[1].upper() not in [one.uuid for one in others]:
        return dataclasses.replace(root, uuid=by_uuid[1].upper())
    if by_label and by_label[1] not in [one.name for one in others]:
        return dataclasses.replace(root, name=by_label[1])
    if by_uuid or by_label:
        raise refused(f"{volume.dev} is another partition of the image", f"choose another name in {volume.source}")
    raise refused(
        f'{volume.source} says dev = "{volume.dev}", which is no name that a partition can be given',
        f'say dev = "/dev/disk/by-partlabel/{volume.volume}": the partition gets that name; by-partuuid works as well',
    )


def _require_apart(table: Table, size: int) -> None:
    """Raise CryptpilotError for partitions that lie on each other, or beyond the end of the disk."""
    inorder = sorted(table.partitions, key=lambda one: one.start)
    for one, following in zip(inorder, inorder[1:]):
        if one.end > following.start:
            raise refused(f"partitions {one.number} and {following.number} lie on each other")
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


def written(found: Found, laid: Layout, loaders: Roles, volume: Volume) -> int:
    """Return how many bytes are written at most."""
    system, sizes = found.system, {one.number: one.size * SECTOR for one in laid.table.partitions}
    # with tags, all of a volume is written once: what was not cannot be read
    root = sizes[system.root] if volume.integrity else device_size(system.used, volume, laid.sector_size)
    whole = sum(sizes[number] for number in (loaders.bios, loaders.esp) if number is not None)
    return root + whole + 2 * system.boot_used + BOOT_ROOM * len(system.kernels)

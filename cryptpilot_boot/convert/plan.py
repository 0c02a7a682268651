"""What an image becomes; everything that cannot become one is refused here, before anything is written. Pure.

It is an allow list: everything else is refused, and the error names it.
"""

from __future__ import annotations

import dataclasses
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import bootloader, grub, layout, mending, requirements
from cryptpilot_boot.convert.facts import SUSPENDED, SWAP, Roles, Swap, mount_lines, named, refused
from cryptpilot_boot.convert.layout import BIOS_BOOT
from cryptpilot_boot.errors import printable
from cryptpilot_boot.system import disk_image
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.system.lvm import MEMBER
from cryptpilot_boot.system.partition_table import KINDS, MBR, SECTOR, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Content, InstalledDisk
    from cryptpilot_boot.system.disk_image import ImageFile
    from cryptpilot_boot.system.lvm import Logical
    from cryptpilot_boot.system.partition_table import Partition

FILE_SYSTEMS = ("ext4", "xfs")
NO_RESUMING = "hibernation: resume= is removed from the kernel command line"
_PLAIN_NAME = re.compile(r'[^"\\\x00-\x1f]*')
_EXTENDED = ("5", "F", "85")  # types that hold logical partitions; linux/block/partitions/msdos.c
_KINDS = {
    "crypto_LUKS": "holds LUKS: the image is encrypted already",
    "btrfs": "holds btrfs, which is not supported: a disk of the host with the same UUID could take its place",
    SWAP: "is swap space, which a disk that is converted in place cannot have: remove it, or convert an image of it",
    SUSPENDED: "holds a system that hibernates: boot the image, shut it down, and try again",
    "linux_raid_member": "is part of a RAID",
    "": "holds nothing that is recognized",
}


@dataclasses.dataclass(frozen=True)
class Unified:
    """The request for a unified kernel image. key, certificate: to sign it with, PEM; None for no signature."""

    key: Path | None = None
    certificate: Path | None = None


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What an image becomes.

    table, size: of the new one, size in bytes. root, boot, bios, esp: numbers of partitions. new_boot: whether /boot
    gets its own partition. kinds: file systems by partition, of those that are copied as such. volume: the volume that
    replaces the root's partition, dev included; logical: the logical volume that holds the root in the old image, None
    for none. loader: what is done to the boot loader. used: bytes that are copied, at most. whole: what else is copied,
    block by block; boot_areas: and what outside of partitions, where it begins and its length in bytes. packages: that
    are installed in there. contexts: the path of what says how SELinux labels files, "" for not at all. unified:
    whether it boots by a unified kernel image. swaps: the swap space that it has no longer; swapped_to: the names that
    fstab has for it. resumes: whether the kernel command line had resume=. root_names: the names that fstab has for the
    root's file system.
    """

    table: Table
    size: int
    root: int
    boot: int
    new_boot: bool
    kinds: Mapping[int, str]
    volume: Volume
    logical: Logical | None
    sector_size: int
    kernels: tuple[str, ...]
    loader: bootloader.Change
    used: int
    whole: tuple[int, ...]
    esp: int | None
    boot_areas: tuple[tuple[int, int], ...]
    packages: tuple[Path, ...] = ()
    contexts: str = ""
    unified: Unified | None = None
    swaps: tuple[Swap, ...] = ()
    swapped_to: frozenset[str] = frozenset()
    resumes: bool = False
    root_names: frozenset[str] = frozenset()

    @property
    def boot_kind(self) -> str:
        """Return the file system of /boot."""
        return "ext4" if self.new_boot else self.kinds[self.boot]

    @property
    def lines(self) -> list[str]:
        """Say it to a person."""
        root, boot = self.table.partition(self.root), self.table.partition(self.boot)
        made = "a partition of its own, new" if self.new_boot else "as it is"
        return [
            f"root: partition {self.root} ({readable(root.size * SECTOR)}), {self.kinds[self.root]} in volume"
            f" {self.volume.volume}" + (" with integrity" if self.volume.integrity else ""),
            *(
                [f"LVM: logical volume {self.logical} is copied out of it; the new image has no LVM"]
                if self.logical
                else []
            ),
            *(
                f"swap: {one} is left out, because the host could read and change it; a temporary volume can be swap"
                for one in self.swaps
            ),
            *([NO_RESUMING] if self.resumes else []),
            f"/boot: partition {self.boot} ({readable(boot.size * SECTOR)}), {made}; it stays readable",
            f"kernels: {', '.join(self.kernels)}",
            *([f"packages: {', '.join(path.name for path in self.packages)}"] if self.packages else []),
            f"the disk has {readable(self.size)}, of which at most {readable(self.used)} are written",
        ]


def require_readable(image: ImageFile, name: str) -> None:
    """Raise CryptpilotError for an image of a format that is not known, or that is not all there is."""
    if image.format not in disk_image.FORMATS:
        raise refused(f"{name} is {image.format}", f"{disk_image.ARE_READ}; see qemu-img convert")
    if image.parts:
        raise refused(f"{name} needs {image.parts[0]}", "make it whole first: qemu-img convert")


def require_table(table: Table | None, name: str) -> Table:
    """Return a partition table; raise CryptpilotError unless it is of a known kind, with sectors of 512 bytes."""
    if table is None:
        raise refused(f"{name} has no partition table", "it has to be the image of a whole disk")
    if table.label == MBR and any(one.type == "EE" for one in table.partitions):
        raise refused(f"{name} has a GPT that is not where it is with sectors of 512 bytes", "only these are known")
    if table.label not in KINDS:
        raise refused(f"{name} has a partition table of kind {table.label}", "only GPT and MBR are supported")
    if table.sector != SECTOR:
        raise refused(f"{name} has sectors of {table.sector} bytes", "only 512 are supported")
    return table


def require_primary(table: Table, name: str) -> None:
    """Raise CryptpilotError for a table that has extended or logical partitions, but for swap space; see `without`."""
    for one in table.partitions:
        if _is_logical(one, table) or _is_extended(one, table):
            raise refused(
                f"partition {one.number} of {name} is an extended or a logical one",
                "only primary partitions are supported; give the image a GPT",
            )


def _is_logical(one: Partition, table: Table) -> bool:
    return one.number not in KINDS[table.label].numbers


def _is_extended(one: Partition, table: Table) -> bool:
    return table.label == MBR and one.type in _EXTENDED


def require_sound(number: int, fault: str) -> None:
    """Raise CryptpilotError for a file system that should not be copied as it is. fault: "" for one that may be."""
    if fault:
        raise refused(f"the file system of partition {number} {fault}", "boot the image, shut it down, and try again")


def logical_partition(table: Table, contents: Mapping[int, Content]) -> int | None:
    """Return the partition that holds a logical volume, None for none. Raises CryptpilotError for more than one."""
    loaders = (BIOS_BOOT, KINDS[table.label].esp)
    found = [one.number for one in table.partitions if one.type not in loaders and contents[one.number].kind == MEMBER]
    if len(found) > 1:
        raise refused(f"partitions {found[0]} and {found[1]} are both part of LVM", "only one is supported")
    return next(iter(found), None)


def swap_partitions(table: Table, contents: Mapping[int, Content]) -> list[Swap]:
    """Return the swap space that has its own partition."""
    loaders = (BIOS_BOOT, KINDS[table.label].esp)
    return [
        Swap(contents[one.number], one)
        for one in table.partitions
        if one.type not in loaders and contents[one.number].kind == SWAP
    ]


def without(table: Table, swaps: Sequence[Swap]) -> Table:
    """Return a table without the partitions of swap space, and without an extended one that has nothing else in it."""
    gone = [one.partition for one in swaps]
    left = [one for one in table.partitions if one not in gone]
    if len(left) < len(table.partitions) and not any(_is_logical(one, table) for one in left):
        left = [one for one in left if not _is_extended(one, table)]
    return dataclasses.replace(table, partitions=tuple(left))


def roles(table: Table, contents: Mapping[int, Content], boot_code: bytes = b"") -> Roles:
    """Say what partitions are for. boot_code: of the disk, see `grub.BOOT_CODE`.

    Raises CryptpilotError for a partition that is for nothing that is known.
    """
    esp = KINDS[table.label].esp
    found: dict[str, list[int]] = {BIOS_BOOT: [], esp: [], "": []}
    gap = table.label == MBR and grub.is_boot_code(boot_code)
    for one in table.partitions:
        kind = contents[one.number].kind
        if one.type == esp and kind != "vfat":
            raise refused(f"partition {one.number} is an EFI system partition and holds {kind or 'nothing'}, not vfat")
        if one.type not in (BIOS_BOOT, esp) and kind not in FILE_SYSTEMS:
            raise refused(f"partition {one.number} {_KINDS.get(kind, f'holds {printable(kind)}')}")
        if not _PLAIN_NAME.fullmatch(one.name):
            raise refused(f"partition {one.number} has a name with a quotation mark or the like")
        found[one.type if one.type in found else ""].append(one.number)
    for kind, what in ((BIOS_BOOT, "BIOS boot partitions"), (esp, "EFI system partitions")):
        if len(found[kind]) > 1:
            raise refused(f"there are {len(found[kind])} {what}")
    if not (found[BIOS_BOOT] or found[esp] or gap):
        bios = "GRUB's boot code" if table.label == MBR else "a BIOS boot partition"
        raise refused(f"there is neither {bios} nor an EFI system partition: no supported boot loader starts it")
    first = {kind: next(iter(numbers), None) for kind, numbers in found.items()}
    return Roles(tuple(found[""]), bios=first[BIOS_BOOT], esp=first[esp], gap=gap)


def make(
    found: InstalledDisk,
    volume: Volume,
    loaders: Roles,
    unified: Unified | None = None,
    packages: Mapping[Path, int] = MappingProxyType({}),
) -> Conversion:
    """Decide what an image becomes. Raises CryptpilotError when that is not known.

    packages: bytes of those that are installed in it, by their paths.
    """
    system = found.system
    boot = _boot(found, loaders, volume)
    requirements.require_system(system, volume, packages=bool(packages))
    requirements.require_volume(volume, found)
    for number, fault in sorted(found.faults.items()):
        require_sound(number, fault)
    requirements.require_root_room(found, moved=boot is None, packages=sum(packages.values()))
    loader = bootloader.change(found, loaders, volume, moved=boot is None)
    if unified:
        requirements.require_unified(found, loaders)
    if boot is not None:
        requirements.require_boot_room(found, len(loader.copies))
    laid = layout.lay_out(found, volume, boot, loaders)
    return Conversion(
        table=laid.table,
        size=laid.size,
        root=system.root,
        boot=laid.boot,
        new_boot=boot is None,
        kinds={number: found.contents[number].kind for number in loaders.candidates},
        volume=volume,
        logical=found.contents[system.root].logical,
        sector_size=laid.sector_size,
        kernels=tuple(one.release for one in system.kernels),
        loader=loader,
        used=layout.written(found, laid, loaders, volume),
        whole=tuple(number for number in (loaders.bios, loaders.esp) if number is not None),
        esp=loaders.esp,
        boot_areas=layout.boot_areas(found.table, loaders),
        packages=tuple(packages),
        contexts=system.contexts,
        unified=unified,
        swaps=found.swaps,
        swapped_to=found.swapped_to,
        resumes=bootloader.resumes(system.loader),
        root_names=found.root_names,
    )


def _boot(found: InstalledDisk, loaders: Roles, volume: Volume) -> int | None:
    """Return the partition of /boot, None where it is a directory of the root."""
    mounts = found.system.mounts
    mended = mending.fstab(found.system.fstab, volume, "", found.swapped_to)
    root = mounts.get("/")
    if root is None or named(root.source, found.table, found.contents) != found.system.root:
        raise refused(f"/etc/fstab does not say that / is partition {found.system.root}, where it was found")
    if [one.source for where, one in mount_lines(mended) if where == "/"] != [volume.mapper_path]:
        raise refused("/etc/fstab mounts / by more than one line, or by one that is not plain", "have it say it once")
    where = mounts.get("/boot")
    boot = named(where.source, found.table, found.contents) if where else None
    if where and boot is None:
        raise refused(f"/etc/fstab mounts /boot from {printable(where.source)}, which is not in the image")
    if boot is not None and (boot not in loaders.candidates or boot == found.system.root):
        raise refused(f"/etc/fstab mounts /boot from partition {boot}, which is not a file system for /boot alone")
    if boot is not None and found.contents[boot].logical:
        raise refused(f"/boot is in LVM, on partition {boot}", "only the root is supported there")
    others = set(loaders.candidates) - {found.system.root, boot}
    if others:
        raise refused(f"partition {min(others)} is neither the root nor /boot", "only these two are supported")
    efi = mounts.get("/boot/efi")
    if efi and named(efi.source, found.table, found.contents) != loaders.esp:
        raise refused("/etc/fstab mounts /boot/efi from another partition than the EFI system partition")
    return boot

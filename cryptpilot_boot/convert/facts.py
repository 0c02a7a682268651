"""What there is in an image, as values."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.units import fstab

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.system.disk_image import ImageFile
    from cryptpilot_boot.system.lvm import Logical
    from cryptpilot_boot.system.partition_table import Partition, Table
    from cryptpilot_boot.units.fstab import Entry

_KERNEL_NAMES = re.compile(r"/dev/(?:[hsv]d[a-z]|xvd[a-z]|(?:nvme[0-9]+n|mmcblk)[0-9]+p)([0-9]+)")
SWAP, SUSPENDED = "swap", "swsuspend"
"""What libblkid calls swap space: as it is, and with the memory of a system that hibernates in it."""
_DIRECTORIES = {f"/dev/disk/by-{key.lower()}/": key for key in ("UUID", "LABEL", "PARTUUID", "PARTLABEL")}


@dataclasses.dataclass(frozen=True)
class Content:
    """The content of a partition, in libblkid's words.

    kind: "" for nothing that is recognized. block: bytes of the smallest thing that its file system reads or writes.
    logical: the logical volume that it holds, None for none; the other fields then describe that.
    """

    kind: str = ""
    uuid: str = ""
    label: str = ""
    block: int = 512
    logical: Logical | None = None


@dataclasses.dataclass(frozen=True)
class Swap:
    """Swap space beside a root. partition: that it is on, None for a logical volume."""

    content: Content
    partition: Partition | None = None

    def __str__(self) -> str:
        return f"partition {self.partition.number}" if self.partition else f"logical volume {self.content.logical}"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel that is installed. images: its initrd images, by path; unified: whether there are unified ones."""

    release: str
    images: tuple[str, ...]
    unified: bool = False


@dataclasses.dataclass(frozen=True)
class Loader:
    """What GRUB reads as it boots, as texts by path.

    configurations: its grub.cfg, in /boot and on the EFI system partition. entries: see `bls`. environments: its
    environment blocks. command_line: what kernels that are installed later are started with, "" where nothing says it.
    releases: which installed kernel a file is that an entry loads, by path; "" for none. images: which images are
    there of those that entries load.
    """

    configurations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    entries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    command_line: str = ""
    releases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    images: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class InstalledSystem:
    """The system whose root was found.

    root: the number of its partition. name: what it calls itself. present: those of `requirements.LOOKED_FOR` that are
    there. plain: those of `requirements.PLAIN_DIRECTORIES` that are directories, and no links. loader_settings: the
    text of what GRUB's configuration is made from. selinux: of SELinux's configuration; contexts: the path of its
    policy's labels, "" without them. used: bytes of its file system, free: that it has left; boot_used: of what
    is in /boot; boot_free: that the file system of /boot has left.
    """

    root: int
    name: str
    fstab: str
    present: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    kernels: tuple[Kernel, ...] = ()
    loader: Loader = Loader()
    loader_settings: str = ""
    selinux: str = ""
    contexts: str = ""
    used: int = 0
    boot_used: int = 0
    boot_free: int = 0
    free: int = 0
    efi_directories: tuple[str, ...] = ()

    @property
    def lines(self) -> list[tuple[str, Entry]]:
        """What fstab mounts: where, written as plainly as can be, and its line."""
        return mount_lines(self.fstab)

    @property
    def mounts(self) -> dict[str, Entry]:
        """What fstab mounts, by where."""
        return dict(self.lines)


@dataclasses.dataclass(frozen=True)
class Roles:
    """The purposes of the partitions, by number; candidates: those that may be the root.

    gap: whether GRUB for BIOS is before the first partition, as it is with an MBR.
    """

    candidates: tuple[int, ...]
    bios: int | None = None
    esp: int | None = None
    gap: bool = False


@dataclasses.dataclass(frozen=True)
class InstalledDisk:
    """A disk, or an image of one, with a system on it.

    contents: of its partitions, by number. faults: what is wrong with file systems, by number. swaps: the swap space in
    it, which is no part of the table and the contents.
    """

    image: ImageFile
    table: Table
    contents: Mapping[int, Content]
    system: InstalledSystem
    faults: Mapping[int, str]
    swaps: tuple[Swap, ...] = ()

    @property
    def swapped_to(self) -> frozenset[str]:
        """Return the names by which fstab has the swap space in it."""
        lines = [entry.source for entry in fstab.parse(self.system.fstab) if entry.kind == "swap"]
        return frozenset(source for source in lines if any(_is_named(source, one, self.table) for one in self.swaps))

    @property
    def root_names(self) -> frozenset[str]:
        """Return the names by which fstab has the file system of the root, in whichever line.

        Of the kernel's names only the one in the line of /: /dev/sdb1 may be a partition of another disk.
        """
        root = self.system.mounts.get("/")
        sources = {entry.source for entry in fstab.parse(self.system.fstab)}
        certain = {one for one in sources if not _KERNEL_NAMES.fullmatch(one) or (root and one == root.source)}
        return frozenset(one for one in certain if named(one, self.table, self.contents) == self.system.root)


def mount_lines(text: str) -> list[tuple[str, Entry]]:
    """Return what /etc/fstab mounts: where, written as plainly as can be, and its line."""
    entries = [entry for entry in fstab.parse(text) if entry.where.startswith("/")]
    return [(posixpath.normpath(re.sub("^/+", "/", entry.where)), entry) for entry in entries]


def content(tags: Mapping[str, str]) -> Content:
    """Return what blkid(8) says of a partition. A release that does not report blocks is taken to mean the least."""
    return Content(
        kind=tags.get("TYPE", ""),
        uuid=tags.get("UUID", ""),
        label=tags.get("LABEL", ""),
        block=int(tags.get("BLOCK_SIZE", "512")),
    )


def named(source: str, table: Table, contents: Mapping[int, Content]) -> int | None:
    """Return the partition that a line of fstab, or `root=`, names; None for none of the image's."""
    known = _KERNEL_NAMES.fullmatch(source)
    if known:
        numbers = {one.number for one in table.partitions}
        return int(known[1]) if int(known[1]) in numbers else None
    for number, one in contents.items():
        if one.logical and source in one.logical.paths:
            return number
    for prefix, key in _DIRECTORIES.items():
        if source.startswith(prefix):
            source = f"{key}={source[len(prefix) :]}"
    key, _, value = source.partition("=")
    value = value.strip('"')
    names = {
        "UUID": {number: one.uuid for number, one in contents.items()},
        "LABEL": {number: one.label for number, one in contents.items()},
        "PARTUUID": {one.number: one.uuid for one in table.partitions},
        "PARTLABEL": {one.number: one.name for one in table.partitions},
    }.get(key, {})
    found = [number for number, name in names.items() if name and name.lower() == value.lower()]
    return found[0] if len(found) == 1 else None


def _is_named(source: str, swap: Swap, table: Table) -> bool:
    """Tell whether a line of fstab names a swap space. table: of the disk that it is on."""
    partitions = (swap.partition,) if swap.partition else ()
    number = swap.partition.number if swap.partition else 0
    return named(source, dataclasses.replace(table, partitions=partitions), {number: swap.content}) is not None


def refused(what: str, hint: str = "") -> CryptpilotError:
    """Return what to say of an image that cannot be converted."""
    return CryptpilotError(
        f"cannot be converted: {what}", hint or 'nothing was written; docs: convert.md, "What it takes"'
    )

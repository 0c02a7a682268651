"""What an image becomes; everything that cannot become one is refused here, before anything is written. Pure.

It is an allow list: what is not known to work is refused, and the refusal says what it is.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import grub, mending
from cryptpilot_boot.convert.facts import mount_lines, named
from cryptpilot_boot.convert.grub import refused
from cryptpilot_boot.errors import printable
from cryptpilot_boot.system import disk_image
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.system.partition_table import ESP, SECTOR, Partition, Table
from cryptpilot_boot.volume.initialize import device_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Content, Found, System
    from cryptpilot_boot.system.disk_image import Facts

FILE_SYSTEMS = ("ext4", "xfs")
# Types of partitions, by GUID. Source: the UEFI specification, 5.3.3; the manual of GRUB, "BIOS installation".
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

DRACUT = "/usr/bin/dracut"
CRYPTSETUP = "/usr/sbin/cryptsetup"
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
"""What starts a kernel with its initrd and command line: systemd-stub(7)."""
DRACUT_NETWORK = "/usr/lib/dracut/modules.d/40network"
PLATFORMS = {BIOS_BOOT: "i386-pc", ESP: "x86_64-efi"}
# What a system has to have, and what to do where it has not.
_NEEDED = {
    DRACUT: "install dracut in it: cryptpilot is a module of dracut's, and an initrd of initramfs-tools cannot have it",
    CRYPTSETUP: "install cryptsetup in it",
    grub.MKCONFIG: "only GRUB as Debian has it is known so far",
    grub.CONFIGURATION: "only GRUB as Debian has it is known so far",
    "/etc/default/grub": "only GRUB as Debian has it is known so far",
    "/usr/bin/systemctl": "only systems with systemd are known so far",
}
# What a system may not have: its boot is another than the one that is known here.
_UNKNOWN = {
    "/boot/loader/entries": "boot loader entries (BLS) are not known so far",
    "/etc/kernel/install.conf": "kernel-install's layouts are not known so far",
}
LOOKED_FOR = (
    *(*_NEEDED, *_UNKNOWN, grub.INSTALL, DRACUT_NETWORK, STUB),
    *(f"/usr/lib/grub/{platform}" for platform in PLATFORMS.values()),
)
PLAIN_DIRECTORIES = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var")
"""What is mounted on, or written below: links there would lead elsewhere."""

_MIB = 1 << 20
_NEW_BOOT = 1 << 30  # bytes of a /boot that gets a partition of its own: as distributions have it
_TABLE_COPY = _MIB  # at the end of the disk
_BOOT_ROOM = 96 * _MIB  # bytes that /boot has to have left for each initrd, which is there twice for a moment
_ROOT_ROOM = 96 * _MIB  # bytes that the root has to have left: for cryptpilot, and for what dracut unpacks
_KERNEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]{0,127}")
_BY_UUID = re.compile(r"/dev/disk/by-partuuid/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_BY_LABEL = re.compile(r"/dev/disk/by-partlabel/([A-Za-z0-9._-]{1,36})")
_PLAIN_NAME = re.compile(r'[^"\\\x00-\x1f]*')
_KINDS = {
    "crypto_LUKS": "holds LUKS: the image is encrypted already",
    "LVM2_member": "is part of LVM, which is not known so far",
    "btrfs": "holds btrfs, which is not known so far",
    "swap": "is swap space: remove it from the image; a temporary volume can be swap",
    "linux_raid_member": "is part of a RAID",
    "": "holds nothing that is recognized",
}


@dataclasses.dataclass(frozen=True)
class Roles:
    """What the partitions are for, by number; candidates: those of which one is the root."""

    candidates: tuple[int, ...]
    bios: int | None = None
    esp: int | None = None


@dataclasses.dataclass(frozen=True)
class Unified:
    """That there is to be a unified kernel image. key, certificate: to sign it with, PEM; None for no signature."""

    key: Path | None = None
    certificate: Path | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an image becomes.

    table, size: of the new one, size in bytes. root, boot, bios, esp: numbers of partitions. new_boot: whether /boot
    gets one of its own. kinds: file systems by partition, of those that are copied as such. volume: what is made of
    the root's partition, dev included. loader: commands that install the boot loader, {disk} for the whole disk.
    used: bytes that are copied, at most. whole: what else is copied, block by block. unified: whether it boots by a
    unified kernel image.
    """

    table: Table
    size: int
    root: int
    boot: int
    new_boot: bool
    kinds: Mapping[int, str]
    volume: Volume
    sector_size: int
    kernels: tuple[str, ...]
    loader: tuple[tuple[str, ...], ...]
    used: int
    whole: tuple[int, ...]
    esp: int | None
    boot_code: bool
    unified: Unified | None = None

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
            f"/boot: partition {self.boot} ({readable(boot.size * SECTOR)}), {made}; it stays readable",
            f"kernels: {', '.join(self.kernels)}",
            f"the disk has {readable(self.size)}, of which at most {readable(self.used)} are written",
        ]


def require_readable(image: Facts, name: str) -> None:
    """Raise CryptpilotError for an image of a format that is not known, or that is not all there is."""
    if image.format not in disk_image.FORMATS:
        raise refused(f"{name} is {image.format}", f"{disk_image.ARE_READ}; see qemu-img convert")
    if image.parts:
        raise refused(f"{name} needs {image.parts[0]}", "make it whole first: qemu-img convert")


def require_table(table: Table | None, name: str) -> Table:
    """Return a partition table; raise CryptpilotError unless it is GPT, with sectors of 512 bytes."""
    if table is None:
        raise refused(f"{name} has no partition table", "it has to be the image of a whole disk")
    if table.label == "dos" and any(one.type == "EE" for one in table.partitions):
        raise refused(f"{name} has a GPT that is not where it is with sectors of 512 bytes", "only these are known")
    if table.label != "gpt":
        raise refused(f"{name} has a partition table of kind {table.label}", "only GPT is known so far")
    if table.sector != SECTOR:
        raise refused(f"{name} has sectors of {table.sector} bytes", "only 512 are known so far")
    return table


def require_sound(number: int, fault: str) -> None:
    """Raise CryptpilotError for a file system that should not be copied as it is. fault: "" for one that may be."""
    if fault:
        raise refused(f"the file system of partition {number} {fault}", "boot the image, shut it down, and try again")


def roles(table: Table, contents: Mapping[int, Content]) -> Roles:
    """Say what partitions are for. Raises CryptpilotError for one that is for nothing that is known."""
    found: dict[str, list[int]] = {BIOS_BOOT: [], ESP: [], "": []}
    for one in table.partitions:
        kind = contents[one.number].kind
        if one.type == ESP and kind != "vfat":
            raise refused(f"partition {one.number} is an EFI system partition and holds {kind or 'nothing'}, not vfat")
        if one.type not in (BIOS_BOOT, ESP) and kind not in FILE_SYSTEMS:
            raise refused(f"partition {one.number} {_KINDS.get(kind, f'holds {printable(kind)}')}")
        if not _PLAIN_NAME.fullmatch(one.name):
            raise refused(f"partition {one.number} has a name with a quotation mark or the like")
        found[one.type if one.type in PLATFORMS else ""].append(one.number)
    for kind, what in ((BIOS_BOOT, "BIOS boot partitions"), (ESP, "EFI system partitions")):
        if len(found[kind]) > 1:
            raise refused(f"there are {len(found[kind])} {what}")
    if not found[BIOS_BOOT] and not found[ESP]:
        raise refused("there is neither a BIOS boot partition nor an EFI system partition: nothing boots it")
    return Roles(tuple(found[""]), *(next(iter(found[kind]), None) for kind in (BIOS_BOOT, ESP)))


def make(found: Found, volume: Volume, loaders: Roles, unified: Unified | None = None) -> Plan:
    """Decide what an image becomes. Raises CryptpilotError when that is not known."""
    system = found.system
    boot = _boot(found, loaders, volume)
    _require_system(system)
    _require_volume(volume, found)
    for number, fault in sorted(found.faults.items()):
        require_sound(number, fault)
    _require_root_room(found, moved=boot is None)
    if unified:
        _require_unified(system, loaders)
    if boot is not None:
        _require_boot_room(found)
    laid = _Layout(found, volume, boot)
    return Plan(
        table=laid.table,
        size=laid.size,
        root=system.root,
        boot=laid.boot,
        new_boot=boot is None,
        kinds={number: found.contents[number].kind for number in loaders.candidates},
        volume=volume,
        sector_size=laid.sector_size,
        kernels=tuple(one.release for one in system.kernels),
        loader=grub.install_commands(system, loaders.bios, loaders.esp) if boot is None else (),
        used=_written(found, laid, loaders, volume),
        whole=tuple(number for number in (loaders.bios, loaders.esp) if number is not None),
        esp=loaders.esp,
        boot_code=loaders.bios is not None,
        unified=unified,
    )


def _boot(found: Found, loaders: Roles, volume: Volume) -> int | None:
    """Return the partition of /boot, None where it is a directory of the root."""
    mounts = found.system.mounts
    mended = mending.fstab(found.system.fstab, volume, "")
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
        raise refused(f"/etc/fstab mounts /boot from partition {boot}, which is no file system for /boot alone")
    others = set(loaders.candidates) - {found.system.root, boot}
    if others:
        raise refused(f"partition {min(others)} is neither the root nor /boot", "only these two are known so far")
    efi = mounts.get("/boot/efi")
    if efi and named(efi.source, found.table, found.contents) != loaders.esp:
        raise refused("/etc/fstab mounts /boot/efi from another partition than the EFI system partition")
    return boot


def _require_system(system: System) -> None:
    for path, hint in _NEEDED.items():
        if path not in system.present:
            raise refused(f"{system.name} in it has no {path}", hint)
    for path, hint in _UNKNOWN.items():
        if path in system.present:
            raise refused(f"{system.name} in it has {path}", hint)
    for path in PLAIN_DIRECTORIES:
        if path not in system.plain:
            raise refused(f"{path} in it is not a directory")
    if re.search(r"^\s*SELINUX=(?!disabled\s*$)", system.selinux, re.MULTILINE):
        raise refused("it has SELinux, and what is put into it would have no labels", "disable it in the image first")
    if not system.kernels:
        raise refused("no kernel is installed in it")
    for kernel in system.kernels:
        if not _KERNEL_NAME.fullmatch(kernel.release):
            raise refused(f"/lib/modules in it has {printable(kernel.release)}, which is no name of a kernel")
        if len(kernel.images) != 1 or kernel.unified:
            has = "a unified kernel image" if kernel.unified else f"{len(kernel.images) or 'no'} initrd images"
            raise refused(f"kernel {kernel.release} in it has {has}", "one of dracut's for each is known so far")
    entries = grub.kernels(system.loader)
    if not entries:
        raise refused(f"{grub.CONFIGURATION} in it boots no Linux")
    if any(one.value("resume") is not None for one in entries):
        raise refused("it resumes from hibernation (resume= on the kernel command line)", "remove that first")
    if re.search(r"^[^#]*\b(root|rootflags)=", system.loader_settings, re.MULTILINE):
        raise refused("/etc/default/grub in it sets root= for the kernel by itself", "remove that first")


def _require_unified(system: System, loaders: Roles) -> None:
    if loaders.esp is None:
        raise refused("it has no EFI system partition, which a unified kernel image is started from")
    if STUB not in system.present:
        raise refused(f"{system.name} in it has no {STUB}", "install systemd-boot-efi in it")


def _require_volume(volume: Volume, found: Found) -> None:
    kind = found.contents[found.system.root].kind
    if volume.temporary:
        raise refused(
            f"volume {volume.volume} is temporary: its key is lost at the end", "a root needs another provider"
        )
    if not volume.auto_open or not volume.initrd:
        raise refused(
            f"{volume.source} does not have the initrd open the volume",
            "set auto_open = true, and remove initrd = false",
        )
    if volume.makefs not in (None, kind):
        raise refused(
            f'the root is {kind}, and {volume.source} says makefs = "{volume.makefs}"', f'set makefs = "{kind}"'
        )
    if volume.identity:
        raise refused(
            f"volume {volume.volume} is bound to a disk already ({volume.identity.source})",
            "give the image a volume, or a configuration directory, of its own",
        )
    if volume.needs_network and DRACUT_NETWORK not in found.system.present:
        raise refused("its dracut has no network, and the key comes over it", "install dracut-network in it")


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


class _Layout:
    """Where everything goes: partitions stay where they are, but the root, and a new /boot before it."""

    def __init__(self, found: Found, volume: Volume, boot: int | None) -> None:
        table, number = found.table, found.system.root
        old = table.partition(number)
        _require_apart(table, found.image.size)
        if any(one.start > old.start for one in table.partitions):
            raise refused(f"partition {number}, the root, is not the last one on the disk, and cannot grow")
        self.sector_size = _sector_size(volume, found.contents[number])
        start = _up(old.start * SECTOR)
        new: list[Partition] = []
        self.boot = boot or 0
        if boot is None:
            self.boot = min(set(range(1, 129)) - {one.number for one in table.partitions})
            used, kernels = found.system.boot_used, len(found.system.kernels)
            size = max(_NEW_BOOT, _up(4 * used), _up(used + (kernels + 1) * _BOOT_ROOM))
            new.append(Partition(self.boot, start // SECTOR, size // SECTOR, LINUX, _uuid_of(old, "boot"), "boot"))
            start += size
        needed = _up(device_size(old.size * SECTOR, volume, self.sector_size))
        root = dataclasses.replace(old, start=start // SECTOR, size=needed // SECTOR)
        root = _named_partition(root, volume, table)
        kept = [one for one in table.partitions if one.number != number]
        partitions = sorted([*kept, *new, root], key=lambda one: one.number)
        self.table = dataclasses.replace(table, partitions=tuple(partitions))
        self.size = max(start + needed + _TABLE_COPY, _up(found.image.size))


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


def _require_root_room(found: Found, *, moved: bool) -> None:
    system = found.system
    left = system.free + (system.boot_used if moved else 0)
    if left < _ROOT_ROOM:
        raise refused(
            f"the root's file system has {readable(left)} left, and cryptpilot and dracut need {readable(_ROOT_ROOM)}",
            "make room in the image",
        )


def _require_boot_room(found: Found) -> None:
    system, needed = found.system, _BOOT_ROOM * len(found.system.kernels)
    if system.boot_free < needed:
        raise refused(
            f"/boot has {readable(system.boot_free)} left, and its initrds need {readable(needed)}",
            "remove old kernels from the image, or enlarge its /boot",
        )


def _written(found: Found, laid: _Layout, loaders: Roles, volume: Volume) -> int:
    """Return how many bytes are written at most."""
    system, sizes = found.system, {one.number: one.size * SECTOR for one in laid.table.partitions}
    # with tags, all of a volume is written once: what was not cannot be read
    root = sizes[system.root] if volume.integrity else device_size(system.used, volume, laid.sector_size)
    whole = sum(sizes[number] for number in (loaders.bios, loaders.esp) if number is not None)
    return root + whole + 2 * system.boot_used + _BOOT_ROOM * len(system.kernels)

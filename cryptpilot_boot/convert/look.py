"""Looking into an image: it is only read, and its file systems are mounted without replaying a journal."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import facts, grub, labels, loading, logical, plan, requirements
from cryptpilot_boot.errors import CryptpilotError, printable
from cryptpilot_boot.system import block, clone, loop, lvm, partition_table, programs, workplace
from cryptpilot_boot.system.foreign_root import Root
from cryptpilot_boot.system.mounts import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptpilot_boot.convert.facts import Content, InstalledSystem, Roles, Swap
    from cryptpilot_boot.system.disk_image import ImageFile
    from cryptpilot_boot.system.lvm import Logical
    from cryptpilot_boot.system.partition_table import Table

_ITSELF = Path("/proc/self/exe")
READ_ONLY = ("ro", "nosuid", "nodev", "noexec")


@dataclasses.dataclass(frozen=True)
class OpenImage:
    """A raw image that is open for reading: as a loop device, with its partitions. roles: what they are for.

    devices: what has the content of each partition, by number: itself, or what maps the logical volume in it.
    swaps: the swap space in it; its partitions are not among the others.
    """

    device: str
    devices: Mapping[int, str]
    table: Table
    contents: Mapping[int, Content]
    roles: Roles
    swaps: tuple[Swap, ...] = ()

    def partition(self, number: int) -> str:
        """Return the device that has what a partition holds."""
        return self.devices[number]


def partition(disk: str, number: int) -> str:
    """Return the device of a partition: the kernel has a "p" between a name that ends in a digit and the number."""
    return f"{disk}{'p' if disk[-1:].isdigit() else ''}{number}"


@contextlib.contextmanager
def opened(raw: Path, name: str, mapping: str) -> Iterator[OpenImage]:
    """Open a raw image. name: what a person knows it by. mapping: the name of one for a logical volume in it.

    Raises CryptpilotError for what cannot be converted.
    """
    descriptor = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
    try:
        table = plan.require_table(partition_table.read(Path(f"/proc/{os.getpid()}/fd/{descriptor}")), name)
        with loop.attached(descriptor, partitions=True) as device, contextlib.ExitStack() as stack:
            devices = {one.number: partition(device, one.number) for one in table.partitions}
            contents = {number: content(node) for number, node in devices.items()}
            swaps = plan.swap_partitions(table, contents)
            table = plan.without(table, swaps)
            plan.require_primary(table, name)
            contents = {one.number: contents[one.number] for one in table.partitions}
            number = plan.logical_partition(table, contents)
            if number is not None:
                lvm.require_programs()
                volumes = logical.volumes(number, lvm.read(devices[number]))
                held = {one: _content_of(devices[number], one, mapping) for one in volumes}
                root = logical.root_among(number, held)
                swaps += [facts.Swap(content) for one, content in held.items() if one != root]
                contents[number] = held[root]
                devices[number] = stack.enter_context(lvm.mapped(devices[number], root, mapping))
            code = os.pread(descriptor, grub.BOOT_CODE, 0)
            yield OpenImage(device, devices, table, contents, plan.roles(table, contents, code), tuple(swaps))
    finally:
        os.close(descriptor)


def content(device: str) -> Content:
    """Return what a partition holds. Raises CryptpilotError if the kernel shows none."""
    if not block.is_block_device(device):
        raise CryptpilotError(f"{device}: the kernel shows no such partition", "see: lsblk; dmesg")
    return facts.content(block.tags(device))


def _content_of(device: str, inside: Logical, mapping: str) -> Content:
    """Return what a logical volume holds. device: that it lies on; mapping: a name for it meanwhile."""
    with lvm.mapped(device, inside, mapping) as node:
        return dataclasses.replace(content(node), logical=inside)


def found(image: ImageFile, source: OpenImage, work: Path) -> facts.InstalledDisk:
    """Look into an open image. work: a directory to mount in, with the directories "root" and "esp"."""
    clones = {number: source.contents[number].kind for number in source.roles.candidates}
    missing = clone.missing(sorted(set(clones.values())))
    if missing:
        raise CryptpilotError(
            f"programs are missing: {', '.join(missing)}", "install e2fsprogs for ext4, xfsprogs for xfs"
        )
    faults = {number: clone.fault(kind, source.partition(number)) for number, kind in clones.items()}
    whole = {number: kind for number, kind in clones.items() if not faults[number]}
    system = _system(source, whole, work)
    if system is None:
        for number, fault in faults.items():
            plan.require_sound(number, fault)
        raise CryptpilotError("cannot be converted: no file system in it is the root of a system")
    return facts.InstalledDisk(
        image,
        source.table,
        source.contents,
        system,
        {one: said for one, said in faults.items() if said},
        source.swaps,
    )


def _system(source: OpenImage, kinds: Mapping[int, str], work: Path) -> InstalledSystem | None:
    """Find the system whose root is in one of these partitions; None without one."""
    systems = []
    for number, kind in kinds.items():
        with _mounted(source.partition(number), work / "root", kind) as path:
            root = Root(path)
            if not (root.has("/etc/fstab") and root.has("/etc/os-release")):
                continue
            requirements.require_machine(_machine(root, requirements.SYSTEMCTL), programs.machine(_ITSELF))
            text = root.text("/etc/fstab")
            bare = facts.InstalledSystem(number, name="", fstab=text)
            boot = bare.mounts.get("/boot")
            where = facts.named(boot.source, source.table, source.contents) if boot else None
            with contextlib.ExitStack() as stack:
                plain = frozenset(name for name in requirements.PLAIN_DIRECTORIES if root.is_directory(name))
                used, free = _used(path), workplace.room(path)
                if where is not None and where in kinds and where != number and "/boot" in plain:
                    stack.enter_context(_mounted(source.partition(where), path / "boot", kinds[where]))
                esp = source.roles.esp
                efi = _efi_directories(source.partition(esp), work / "esp", stack) if esp else ()
                of_root = dataclasses.replace(bare, plain=plain, used=used, free=free, efi_directories=efi)
                of_root = _read(root, of_root)
                if esp and root.is_directory("/boot/efi"):
                    stack.enter_context(mounted(source.partition(esp), path / "boot/efi", "vfat", READ_ONLY))
                releases = [one.release for one in of_root.kernels]
                systems.append(dataclasses.replace(of_root, loader=loading.read(root, releases)))
    if len(systems) > 1:
        both = " and ".join(str(one.root) for one in systems)
        raise CryptpilotError(f"cannot be converted: partitions {both} are both the root of a system")
    return next(iter(systems), None)


def _mounted(device: str, target: Path, kind: str) -> contextlib.AbstractContextManager[Path]:
    return mounted(device, target, kind, (*READ_ONLY, *clone.KINDS[kind].readonly, *clone.KINDS[kind].options))


def _efi_directories(device: str, target: Path, stack: contextlib.ExitStack) -> tuple[str, ...]:
    """Return what is below /EFI of an EFI system partition: a directory for each loader."""
    esp = Root(stack.enter_context(mounted(device, target, "vfat", READ_ONLY)))
    directories = [one for one in esp.path.iterdir() if one.name.lower() == "efi" and one.is_dir()]
    return tuple(sorted(one.name for directory in directories for one in directory.iterdir()))


def _read(root: Root, bare: InstalledSystem) -> InstalledSystem:
    names = dict(line.partition("=")[::2] for line in root.text("/etc/os-release").splitlines())
    settings = [root.text(path) for path in loading.settings_files(root)]
    boot = root.place("/boot")
    selinux = root.text(labels.CONFIGURATION)
    contexts = labels.contexts(selinux)
    return dataclasses.replace(
        bare,
        name=printable(names.get("PRETTY_NAME", "").strip("\"'")) or "the system",
        present=frozenset(name for name in requirements.LOOKED_FOR if root.has(name)),
        kernels=loading.kernels(root),
        loader_settings="\n".join(settings),
        selinux=selinux,
        contexts=contexts if contexts and root.is_file(contexts) else "",
        boot_used=sum(path.lstat().st_blocks * 512 for path in boot.rglob("*")) if boot.is_dir() else 0,
        boot_free=workplace.room(boot) if boot.is_dir() else 0,
    )


def _machine(root: Root, program: str) -> str | None:
    return programs.machine(root.place(program)) if root.is_file(program) else None


def _used(path: Path) -> int:
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize

"""A disk that is converted in place: which disks may be, how far a conversion is, and its result.

Up to the moment at which the header of the volume is written before the data, the disk holds the old system; see
system.encryption for that moment. From then on the header is all there is to say how far it is.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import build, look, plan, requirements
from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.convert.layout import BOOT_ROOM
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import (
    block,
    cryptsetup,
    encryption,
    ext4,
    luks_header,
    mappings,
    mkfs,
    partition,
    partition_table,
)
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.system.disk_image import RAW, ImageFile
from cryptpilot_boot.system.luks_conversion import TAKEN, reader
from cryptpilot_boot.system.mapper import remove_empty
from cryptpilot_boot.system.programs import is_there
from cryptpilot_boot.volume import state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Content, InstalledDisk
    from cryptpilot_boot.convert.plan import Conversion
    from cryptpilot_boot.system.partition_table import Partition, Table

_PROGRAMS = ("cryptsetup", "sfdisk", "dumpe2fs", "e2fsck", "resize2fs", "tune2fs")


@dataclasses.dataclass(frozen=True)
class Disk:
    """An unused disk of this machine. contents: of its partitions, by number."""

    device: block.Device
    table: Table
    contents: Mapping[int, Content]

    def partition(self, number: int) -> str:
        """Return the device of a partition."""
        return look.partition(self.device.node, number)


@dataclasses.dataclass(frozen=True)
class RootToEncrypt:
    """A root to encrypt in place. blocks: what its file system shrinks to, None where it has room."""

    plan: Conversion
    device: block.Device
    blocks: int | None

    @property
    def volume(self) -> Volume:
        """The volume, on the partition that is there now: whether that has its name by now or not."""
        return on_partition(self.plan.volume, self.device.node)

    @property
    def lines(self) -> list[str]:
        """Say it to a person."""
        shrinks = "" if self.blocks is None else f"; it gives up {readable(TAKEN)} for that"
        root = f"partition {self.plan.root} ({readable(self.device.size)}), ext4"
        return [
            f"root: {root}, encrypted where it is as volume {self.plan.volume.volume}{shrinks}",
            *([plan.NO_RESUMING] if self.plan.resumes else []),
            f"/boot: partition {self.plan.boot}, as it is; it stays readable",
            f"kernels: {', '.join(self.plan.kernels)}",
            "from the set-up of the boot loader until the end, the disk does not boot",
        ]


def on_partition(volume: Volume, device: str) -> Volume:
    """Return a volume with a partition of another machine's disk as its device. Nothing is formatted there."""
    return dataclasses.replace(volume, dev=device, makefs=None, discard=False, identity=None)


def require_convertible(volume: Volume) -> None:
    """Raise CryptpilotError for a volume that cannot be made from existing data."""
    if volume.integrity:
        raise refused(
            f"{volume.source} says integrity = true, which a conversion in place cannot add",
            "convert an image of the disk, which works with integrity; or remove it",
        )
    missing = [program for program in _PROGRAMS if not is_there(program)]
    if missing:
        raise CryptpilotError(
            f"programs are missing: {', '.join(missing)}", "install cryptsetup, e2fsprogs and fdisk (util-linux)"
        )


def opened(path: Path, volume: Volume) -> Disk:
    """Look at a disk of this machine. Raises CryptpilotError unless it is a whole one that is unused, with a GPT."""
    device = block.look_up(str(path))
    if partition.is_partition(device):
        raise refused(f"{path} is a partition", "name the disk that it is on")
    found = partition_table.read(Path(device.node))
    if found and found.label != partition_table.GPT:
        raise refused(f"{path} has a partition table of kind {found.label}", "only GPT has names for partitions")
    table = plan.require_table(found, str(path))
    plan.require_primary(table, str(path))
    for one in table.partitions:
        close_leftover(volume, look.partition(device.node, one.number))
    block.require_unused(device.node)
    contents = {one.number: look.content(look.partition(device.node, one.number)) for one in table.partitions}
    return Disk(device, table, contents)


def close_leftover(volume: Volume, device: str) -> None:
    """Remove the mapping of a partition that a conversion which was killed left behind."""
    remove_empty([build.working_name(volume)])
    found = mappings.find(build.working_name(volume))
    if found and mappings.encrypts(found, device):
        cryptsetup.close(found.name)


def begun(disk: Disk, volume: Volume) -> int | None:
    """Return the partition whose conversion into a volume has begun, None without one.

    Raises CryptpilotError for one that is a volume already, or is becoming another one.
    """
    for one in disk.table.partitions:
        device = disk.partition(one.number)
        mark = luks_header.mark(device)
        if mark == state.COMPLETE:
            raise refused(
                f"partition {one.number} is a cryptpilot volume already", "nothing is left to do: put the disk back"
            )
        if mark == state.CONVERTING:
            if not _is_named(one, volume):
                raise refused(
                    f"partition {one.number} is half converted, and is not {volume.dev}",
                    "name the volume that it is to become",
                )
            return one.number
        if _is_half_written(disk.contents[one.number].kind, device) and _is_named(one, volume):
            return one.number
    return None


def _is_named(one: Partition, volume: Volume) -> bool:
    return Path(volume.dev).name in (one.name, one.uuid.lower())


def _is_half_written(kind: str, device: str) -> bool:
    """Tell whether a power cut kept the header from being written before the data. kind: of what libblkid finds.

    That may be the second copy of the metadata; the first is written last.
    """
    if kind not in ("", "crypto_LUKS") or luks_header.is_foreign(device, ()):
        return False
    header = saved(block.look_up(device))
    if header:
        header.close()
    return header is not None


def saved(device: block.Device) -> luks_header.Header | None:
    """Return the header that a power cut kept from being written before the data, checked; None without one."""
    header = encryption.saved(device)
    if header is None:
        return None
    try:
        if luks_header.mark(header.path) == state.CONVERTING:
            luks_header.copy_from(header.path, device.path, reader(device.size))[0].close()
            return header
    except CryptpilotError:
        header.close()
        raise
    header.close()
    return None


def look_over(disk: Disk, volume: Volume, work: Path, packages: Mapping[Path, int], *, mend: bool) -> RootToEncrypt:
    """Decide what becomes of a disk that holds an ordinary system. Raises CryptpilotError for what is not known.

    packages: as of `plan.make`. mend: have file systems that were not unmounted, as after a power cut, brought in order
    as a boot would. work: as of `look.found`.
    """
    roles = plan.roles(disk.table, disk.contents)
    if mend:
        for number in roles.candidates:
            if disk.contents[number].kind == "ext4":
                _bring_in_order(number, disk.partition(number))
    devices = {one.number: disk.partition(one.number) for one in disk.table.partitions}
    source = look.OpenImage(disk.device.node, devices, disk.table, disk.contents, roles)
    found = _unmended(look.found(ImageFile(RAW, disk.device.size), source, work), volume)
    kind = found.contents[found.system.root].kind
    if kind != "ext4":
        raise refused(f"the root is {kind}, which cannot be made smaller", "convert an image of the disk instead")
    device = block.look_up(disk.partition(found.system.root))
    now = ext4.size(device.node)
    blocks = (device.size - TAKEN) // now.block
    shrinks = now.blocks > blocks
    if shrinks:
        _require_shrinkable(device, blocks, now)
        left = found.system.free - (now.blocks - blocks) * now.block
        found = dataclasses.replace(found, system=dataclasses.replace(found.system, free=left))
    planned = plan.make(_with_room(found), volume, roles, None, packages)
    if planned.new_boot:
        raise refused(
            "/boot is inside the root, and there is no room for a partition of its own",
            "convert an image of the disk instead",
        )
    if device.size % planned.sector_size:
        planned = dataclasses.replace(planned, sector_size=512)
    return RootToEncrypt(planned, device, blocks if shrinks else None)


def _bring_in_order(number: int, device: str) -> None:
    damage = mkfs.check("ext4", device)
    if damage and ext4.is_of_a_power_cut(device):
        ext4.mend(device)
    elif damage:
        raise refused(f"the file system of partition {number} is damaged: {damage}", f"repair it: e2fsck -f {device}")


def _require_shrinkable(device: block.Device, blocks: int, now: ext4.Size) -> None:
    least = ext4.least(device.node)
    if least > blocks:
        raise refused(
            f"the root's file system needs {readable(least * now.block)} of its {readable(now.bytes)}, and"
            f" {readable(TAKEN)} have to be free",
            "remove files",
        )


def _with_room(found: InstalledDisk) -> InstalledDisk:
    """Return what was found with the room that cryptpilot needs, where it is in the system already.

    An interrupted run took that room. Should there be none in truth, that is found out before the old system is gone.
    """
    system = found.system
    if requirements.CRYPTPILOT not in system.present:
        return found
    boot, root = BOOT_ROOM * len(system.kernels), requirements.ROOT_ROOM
    system = dataclasses.replace(system, boot_free=max(system.boot_free, boot), free=max(system.free, root))
    return dataclasses.replace(found, system=system)


def _unmended(found: InstalledDisk, volume: Volume) -> InstalledDisk:
    """Return what was found as it was before a run was cut short that had mended /etc/fstab already."""
    system = found.system
    root = system.mounts.get("/")
    if root is None or root.source != volume.mapper_path:
        return found
    uuid = found.contents[system.root].uuid
    lines = [
        line.replace(volume.mapper_path, f"UUID={uuid}", 1) if line.split()[1:2] == ["/"] else line
        for line in system.fstab.split("\n")
    ]
    return dataclasses.replace(found, system=dataclasses.replace(system, fstab="\n".join(lines)))

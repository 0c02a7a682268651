"""Partition tables of disk images.

Uses: sfdisk (fdisk, or util-linux), 2.27 or newer: it reads them, and writes them.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
GPT = "gpt"
MBR = "dos"
"""Kinds of tables, as sfdisk has them."""
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
"""Types of partitions in a GPT: the EFI system partition (UEFI specification, 5.3.3), a Linux file system."""


@dataclasses.dataclass(frozen=True)
class TableKind:
    """A kind of table.

    numbers: that partitions can have, but for logical ones. linux, esp: types of partitions: a Linux file system, the
    EFI system partition. most: bytes of a disk, at most.
    """

    numbers: range
    linux: str
    esp: str
    most: int


KINDS = {
    # Source: the UEFI specification, 5.3.3; a number of a sector has 64 bits
    GPT: TableKind(range(1, 129), LINUX, ESP, SECTOR << 64),
    # Source: the UEFI specification, 5.2.1 and 5.2.2; a number of a sector has 32 bits
    MBR: TableKind(range(1, 5), "83", "EF", SECTOR * ((1 << 32) - 1)),
}


@dataclasses.dataclass(frozen=True)
class Partition:
    """A partition. start, size: in sectors. name, attributes: "" for none. bootable: the flag that an MBR has.

    type: a GUID in upper case, or two hexadecimal digits in an MBR. uuid: a GUID in upper case; in an MBR, `partuuid`.
    """

    number: int
    start: int
    size: int
    type: str
    uuid: str
    name: str = ""
    attributes: str = ""
    bootable: bool = False

    @property
    def end(self) -> int:
        """The first sector behind it."""
        return self.start + self.size


@dataclasses.dataclass(frozen=True)
class Table:
    """A partition table.

    label: its kind, such as GPT or MBR; identifier: of the disk, "" for none; sector: bytes. first: the first sector
    that a partition may have; length: how many it has room for; 0 for what sfdisk takes without a word.
    """

    label: str
    identifier: str
    sector: int
    partitions: tuple[Partition, ...]
    first: int = 0
    length: int = 0

    def partition(self, number: int) -> Partition:
        """Return the partition of a number."""
        return next(one for one in self.partitions if one.number == number)


def partuuid(identifier: str, number: int) -> str:
    """Return the substitute for the UUID of a partition in an MBR, in upper case; "" without one.

    identifier: of the disk, in hexadecimal. Source: linux/block/partitions/msdos.c; libblkid has none for zero.
    """
    disk = int(identifier, 16)
    return f"{disk:08X}-{number:02X}" if disk else ""


def identified(table: Table, identifier: str) -> Table:
    """Return an MBR with this identifier of the disk, by which its partitions are known."""
    partitions = tuple(dataclasses.replace(one, uuid=partuuid(identifier, one.number)) for one in table.partitions)
    return dataclasses.replace(table, identifier=identifier, partitions=partitions)


def read(path: Path) -> Table | None:
    """Read the partition table of an image; None without one that sfdisk knows."""
    try:
        return parse(run(["sfdisk", "--json", str(path)])[1])
    except ProgramError as error:
        if error.hint:  # it could not even be run
            raise
        return None


def parse(text: str) -> Table:
    """Read what `sfdisk --json` says."""
    said: dict[str, Any] = json.loads(text)["partitiontable"]
    device = str(said["device"])
    table = Table(
        label=str(said["label"]),
        identifier=str(said.get("id", "")),
        sector=int(said.get("sectorsize", SECTOR)),
        partitions=tuple(
            Partition(
                number=int(str(one["node"])[len(device) :].lstrip("p")),
                start=int(one["start"]),
                size=int(one["size"]),
                type=str(one["type"]).upper(),
                uuid=str(one.get("uuid", "")).upper(),
                name=str(one.get("name", "")),
                attributes=str(one.get("attrs", "")),
                bootable=bool(one.get("bootable", False)),
            )
            for one in said.get("partitions", [])
        ),
        first=int(said.get("firstlba", 0)),
        length=int(said.get("table-length", 0)),
    )
    return identified(table, table.identifier) if table.label == MBR else table


def rename(path: str, partition: Partition) -> None:
    """Give a partition of a disk the name and UUID of `partition`; the kernel keeps it as it is. Raises ProgramError.

    The copy of the table at the disk's end is written apart from the one at its beginning.
    """
    quiet = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel"]
    number = str(partition.number)
    for option, value in (("--part-uuid", partition.uuid), ("--part-label", partition.name)):
        if value:
            run([*quiet, option, path, number, value], finish=True)


def script(table: Table) -> str:
    """Return sfdisk's input for a table. All values are given, so that sfdisk chooses none."""
    lines = [f"label: {table.label}", f"label-id: {table.identifier}", "unit: sectors"]
    lines += [f"first-lba: {table.first}"] if table.first else []
    lines += [f"table-length: {table.length}"] if table.length else []
    for one in table.partitions:
        fields = [f"start={one.start}", f"size={one.size}", f"type={one.type}"]
        fields += [f"uuid={one.uuid}"] if one.uuid and table.label != MBR else []
        fields += [f'name="{one.name}"'] if one.name else []
        fields += [f'attrs="{one.attributes}"'] if one.attributes else []
        fields += ["bootable"] if one.bootable else []
        lines.append(f"{one.number} : {', '.join(fields)}")
    return "\n".join([*lines, ""])


def write(path: Path, table: Table) -> None:
    """Write a table to an image. Raises CryptpilotError if sfdisk made another table."""
    run(["sfdisk", "--quiet", "--no-reread", str(path)], stdin=memoryview(script(table).encode()))
    if read(path) != table:
        raise CryptpilotError(f"{path}: sfdisk made another partition table than requested", "please report this")

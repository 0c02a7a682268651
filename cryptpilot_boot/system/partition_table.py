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
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
"""The type of an EFI system partition; UEFI specification, 5.3.3."""


@dataclasses.dataclass(frozen=True)
class Partition:
    """A partition. start, size: in sectors. type, uuid: GUIDs in upper case. name, attributes: "" for none."""

    number: int
    start: int
    size: int
    type: str
    uuid: str
    name: str = ""
    attributes: str = ""

    @property
    def end(self) -> int:
        """The first sector behind it."""
        return self.start + self.size


@dataclasses.dataclass(frozen=True)
class Table:
    """A partition table.

    label: its kind, "gpt" or "dos"; identifier: of the disk; sector: bytes. first: the first sector that a partition
    may have; length: how many it has room for; 0 for what sfdisk takes without a word.
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


def read(path: Path) -> Table | None:
    """Read the partition table of an image; None where there is none that sfdisk knows."""
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
    return Table(
        label=str(said["label"]),
        identifier=str(said["id"]),
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
            )
            for one in said.get("partitions", [])
        ),
        first=int(said.get("firstlba", 0)),
        length=int(said.get("table-length", 0)),
    )


def script(table: Table) -> str:
    """Return what has sfdisk make a table; all in it is said, so that nothing is chosen."""
    lines = [f"label: {table.label}", f"label-id: {table.identifier}", "unit: sectors"]
    lines += [f"first-lba: {table.first}"] if table.first else []
    lines += [f"table-length: {table.length}"] if table.length else []
    for one in table.partitions:
        fields = [f"start={one.start}", f"size={one.size}", f"type={one.type}"]
        fields += [f"uuid={one.uuid}"] if one.uuid else []
        fields += [f'name="{one.name}"'] if one.name else []
        fields += [f'attrs="{one.attributes}"'] if one.attributes else []
        lines.append(f"{one.number} : {', '.join(fields)}")
    return "\n".join([*lines, ""])


def write(path: Path, table: Table) -> None:
    """Write a table to an image. Raises CryptpilotError when what sfdisk made of it is not that table."""
    run(["sfdisk", "--quiet", "--no-reread", str(path)], stdin=memoryview(script(table).encode()))
    if read(path) != table:
        raise CryptpilotError(f"{path}: sfdisk made another partition table than it was told", "please report this")

"""Logical volumes of one device: what lvm(8) says of them, and a read-only device of one, which is not activated.

LVM is run for that device alone, by no configuration of this system, without locks and without device-mapper: no volume
group of this system is seen or touched, and one of the same name is not in the way.

Uses: lvm (lvm2), dmsetup (device-mapper).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import DeviceError, ProgramError
from cryptpilot_boot.system import block, mappings, programs
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEMBER = "LVM2_member"
"""What libblkid calls a device that is part of LVM."""
_PROGRAMS = {"lvm": "lvm2", "dmsetup": "dmsetup, or device-mapper"}
_SECTOR = 512
# Source: lvmreport(7).
_FIELDS = (
    *("vg_name", "pv_count", "vg_extent_size", "pe_start", "pvseg_start", "pvseg_size"),
    *("lv_name", "lv_size", "lv_layout", "lv_role", "segtype", "seg_start", "vg_uuid", "lv_uuid"),
)
# Source: lvm(8), "ENVIRONMENT VARIABLES": with an empty one, no file of this system's configuration is read.
_ENVIRONMENT = {"LVM_SYSTEM_DIR": "", "LVM_SUPPRESS_FD_WARNINGS": "1"}
# Source: lvm.conf(5). Which devices are scanned, and by what they are found; no file is written.
_CONFIGURATION = (
    'devices {{ scan=["/dev"] global_filter=["a|^{device}$|","r|.*|"] use_devicesfile=0 hints="none"'
    ' obtain_device_list_from_udev=0 external_device_info_source="none" }} backup {{ backup=0 archive=0 }}'
)
# udev leaves devices with such UUIDs alone, see 00-cryptpilot.rules.
_UUID = "CRYPTPILOT-SOURCE-{}"


@dataclasses.dataclass(frozen=True)
class Extents:
    """Extents that follow each other on the device. start, length: in bytes.

    group: the volume group's name, "" for none; devices: how many it has. volume: the logical volume that has them, ""
    for none; size: of that, in bytes; layout, roles: how LVM describes it. kind: of the volume's segment that has them;
    at: where they are in the volume. identity: what device-mapper knows the volume by, see `Logical`.
    """

    group: str
    devices: int
    start: int
    length: int
    volume: str
    size: int
    layout: str
    roles: str
    kind: str
    at: int
    identity: str = ""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a logical volume: where it begins in that, how long it is, and where it is on the device; in bytes."""

    at: int
    length: int
    start: int


@dataclasses.dataclass(frozen=True)
class Logical:
    """A logical volume that lies on one device, part by part. size: in bytes.

    identity: the UUIDs of its group and of itself without hyphens, one after the other, "" where they are not known.
    """

    group: str
    name: str
    size: int
    segments: tuple[Segment, ...]
    identity: str = ""

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the names of its device while it is activated.

        Source: lvm(8), "VALID NAMES"; dmsetup(8); 13-dm-disk.rules of device-mapper.
        """
        doubled = "-".join(name.replace("-", "--") for name in (self.group, self.name))
        names = (f"/dev/{self.group}/{self.name}", f"/dev/mapper/{doubled}", f"/dev/disk/by-id/dm-name-{doubled}")
        return (*names, f"/dev/disk/by-id/dm-uuid-LVM-{self.identity}") if self.identity else names


def require_programs() -> None:
    """Raise DeviceError where this system has not what it takes to read a logical volume."""
    for program, package in _PROGRAMS.items():
        if not programs.is_there(program):
            raise DeviceError(f"the image holds a logical volume, and {program} is missing here", f"install {package}")


def read(device: str) -> tuple[Extents, ...]:
    """Return what extents a device has that is part of LVM, and what they are for. Raises ProgramError."""
    configuration = _CONFIGURATION.format(device=re.escape(device))
    _, text = run(
        [
            *("lvm", "pvs", "--segments"),
            *("--readonly", "--foreign", "--driverloaded=n", f"--config={configuration}"),
            *("--reportformat=json", "--units=b", "--nosuffix", f"--options={','.join(_FIELDS)}"),
        ],
        env=_ENVIRONMENT,
    )
    try:
        return parse(text)
    except (KeyError, TypeError, ValueError):
        raise ProgramError("lvm: its report cannot be read", "releases 2.02.158 and later are known") from None


def parse(text: str) -> tuple[Extents, ...]:
    """Read what `lvm pvs --segments --reportformat=json` says. Raises KeyError, TypeError and ValueError."""
    rows: list[dict[str, Any]] = [row for report in json.loads(text)["report"] for row in report["pvseg"]]
    return tuple(_extents(row) for row in rows)


def _extents(row: dict[str, Any]) -> Extents:
    extent = int(row["vg_extent_size"])
    return Extents(
        group=row["vg_name"],
        devices=int(row["pv_count"]),
        start=int(row["pe_start"]) + extent * int(row["pvseg_start"]),
        length=extent * int(row["pvseg_size"]),
        volume=row["lv_name"],
        size=int(row["lv_size"]),
        layout=row["lv_layout"],
        roles=row["lv_role"],
        kind=row["segtype"],
        at=int(row["seg_start"]),
        identity=f"{row['vg_uuid']}{row['lv_uuid']}".replace("-", ""),
    )


@contextlib.contextmanager
def mapped(device: str, logical: Logical, name: str) -> Iterator[str]:
    """Yield a read-only device that has the content of a logical volume. name: of the mapping.

    device: that the volume lies on. A run that was killed leaves it, see `remove_leftover`. Raises ProgramError.
    """
    text = table(logical.segments, block.look_up(device).number)
    try:
        argv = ["dmsetup", "create", name, "--readonly", f"--uuid={_UUID.format(name)}"]
        run(argv, stdin=memoryview(text.encode()), finish=True)
        made = mappings.find(name)
        if made is None:
            raise DeviceError(f"/dev/mapper/{name}, which was made of {device}, is gone")
        yield f"/dev/{made.node.name}"
    finally:
        remove_leftover(name)


def table(segments: Sequence[Segment], number: str) -> str:
    """Return device-mapper's table for parts of a device. number: "major:minor" of that."""
    return "".join(
        f"{one.at // _SECTOR} {one.length // _SECTOR} linear {number} {one.start // _SECTOR}\n" for one in segments
    )


def remove_leftover(name: str) -> None:
    """Remove a mapping that `mapped` made, if it is there; programs that were killed may use it for another moment.

    Raises DeviceError where something else has that name, and ProgramError.
    """
    found = mappings.find(name)
    if found is None:
        return
    if found.uuid != _UUID.format(name):
        raise DeviceError(f"/dev/mapper/{name} is there, and was not made by a conversion", f"see: dmsetup info {name}")
    run(["dmsetup", "remove", "--retry", name], finish=True)

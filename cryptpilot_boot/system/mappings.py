"""Device-mapper devices: which there are, and the devices that they lie on. Read from /sys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.system import sysfs

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLASS = Path("/sys/class/block")


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A device-mapper device.

    uuid: as its creator named it, "CRYPT-LUKS2-..." for those of cryptsetup. node: its directory in /sys.
    """

    name: str
    uuid: str
    node: Path


def find(name: str) -> Mapping | None:
    """Return the device-mapper device called `name`; None without one."""
    return next((mapping for mapping in _all() if mapping.name == name), None)


def names() -> list[str]:
    """Return the names of all device-mapper devices."""
    return [mapping.name for mapping in _all()]


def _all() -> Iterator[Mapping]:
    for device in _CLASS.glob("dm-*/dm"):
        try:
            name, uuid = ((device / field).read_text().rstrip("\n") for field in ("name", "uuid"))
        except OSError:
            continue  # it was removed after the directory was listed
        yield Mapping(name, uuid, device.parent)


def number(of: Mapping) -> str:
    """Return the "major:minor" of a device-mapper device."""
    return sysfs.attribute(of.node / "dev")


def size(of: Mapping) -> int:
    """Return the bytes of a device-mapper device."""
    return sysfs.SECTOR * int(sysfs.attribute(of.node / "size") or 0)


def identity(of: Mapping) -> str:
    """Return a text that no other device-mapper device has while the machine runs.

    Before Linux 5.15, which does not number disks, a later device may have it after this one was removed.
    """
    return f"{sysfs.attribute(of.node / 'dev')} {sysfs.attribute(of.node / 'diskseq')}".strip()


def encrypts(top: Mapping, path: str) -> bool:
    """Tell whether a mapping is one of cryptsetup and lies, through any number of layers, on the device `path`."""
    try:
        wanted = sysfs.number(Path(path).stat().st_rdev)
    except OSError:
        return False  # it was just removed
    return top.uuid.startswith("CRYPT-") and any(_reaches(below, wanted) for below in _below(top.node))


def lies_on(top: str, below: str) -> bool:
    """Tell whether the device-mapper device of one name lies right on that of another."""
    found, wanted = find(top), find(below)
    return bool(found and wanted and wanted.node.name in [node.name for node in _below(found.node)])


def backing_files(of: Mapping, devices: Path = _CLASS) -> list[str]:
    """Return the files of the loop devices that a mapping lies on, through any number of layers.

    devices: where the kernel lists block devices.
    """
    return _files_below(of.node, devices)


def _files_below(node: Path, devices: Path) -> list[str]:
    found = []
    for below in _below(node, devices):
        disk = below.resolve().parent if (below / "partition").exists() else below
        file = sysfs.attribute(disk / "loop/backing_file")
        found += [file] if file else _files_below(below, devices)
    return found


def _reaches(node: Path, wanted: str) -> bool:
    return sysfs.attribute(node / "dev") == wanted or any(_reaches(below, wanted) for below in _below(node))


def _below(node: Path, devices: Path = _CLASS) -> list[Path]:
    """Return the devices that a device is made of; a partition has no such list."""
    try:
        return [devices / below.name for below in (node / "slaves").iterdir()]
    except OSError:
        return []

"""Block devices: what they are, what they hold, who uses them.

Uses: blkid (util-linux).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from pathlib import Path

from cryptpilot_boot.errors import DeviceError, ProgramError
from cryptpilot_boot.system.run import run

# blkid(8), "EXIT STATUS": 2 with --probe means that nothing was recognised; 8 that several things were.
_BLKID_NOTHING = 2
_BLKID_AMBIVALENT = 8


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a look at a device's content found.

    kind: the name libblkid has for it ("ext4", "crypto_LUKS", "dos" for a partition table, ...); version: that
    of the format; subsystem: that field of a LUKS2 header, "" for all else.
    """

    kind: str
    version: str = ""
    subsystem: str = ""

    def __str__(self) -> str:
        names = {"crypto_LUKS": f"LUKS{self.version}"}
        return names.get(self.kind, self.kind)


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A device-mapper device.

    uuid: as its creator named it, "CRYPT-LUKS2-..." for those of cryptsetup. node: its directory in /sys.
    """

    name: str
    uuid: str
    node: Path


def is_block_device(path: str) -> bool:
    """Tell whether `path` is there and is a block device."""
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return False


def require_block_device(path: str) -> None:
    """Raise DeviceError unless `path` is a block device."""
    if is_block_device(path):
        return
    if not Path(path).exists():
        raise DeviceError(f"{path}: no such device", 'check "dev" in the configuration against the output of lsblk')
    raise DeviceError(f"{path}: is not a block device")


def require_unused(path: str) -> None:
    """Raise DeviceError when somebody uses the device: mounted, swap, below another mapping, opened exclusively.

    The kernel refuses O_EXCL on a block device that is claimed; no list of users could be as complete.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceError(
                f"{path}: is in use (mounted, swap, or part of another device)",
                f"see who uses it: lsblk {path}",
            ) from None
        raise DeviceError(f"{path}: cannot be opened: {error.strerror}") from None


def signature(path: str) -> Signature | None:
    """Look at what the device holds; None when nothing was recognised.

    Raises DeviceError when the device cannot be read, or when what it holds is contradictory: neither is blank.
    """
    try:
        with Path(path).open("rb", buffering=0) as device:
            device.read(4096)
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        status, output = run(
            ["blkid", "--probe", "--output=export", path], accept=(0, _BLKID_NOTHING, _BLKID_AMBIVALENT)
        )
    except ProgramError as error:
        raise DeviceError(f"{path}: cannot tell what is on it: {error.what}") from None
    if status == _BLKID_AMBIVALENT:
        raise DeviceError(f"{path}: holds signatures of several kinds", f"look at them: wipefs --no-act {path}")
    tags = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    kind = tags.get("TYPE") or tags.get("PTTYPE")
    if status == _BLKID_NOTHING or not kind:
        return None
    return Signature(kind, tags.get("VERSION", ""), tags.get("SUBSYSTEM", ""))


def mapping(name: str) -> Mapping | None:
    """Find the device-mapper device called `name`; None when there is none."""
    for device in Path("/sys/class/block").glob("dm-*/dm"):
        try:
            if (device / "name").read_text().rstrip("\n") == name:
                return Mapping(name, (device / "uuid").read_text().rstrip("\n"), device.parent)
        except OSError:
            continue  # it went away between the listing and the look, or is just going
    return None


def encrypts(top: Mapping, path: str) -> bool:
    """Tell whether a mapping is one of cryptsetup and lies, through any number of layers, on the device `path`."""
    device = Path(path).stat().st_rdev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return top.uuid.startswith("CRYPT-") and any(_reaches(below, wanted) for below in _below(top.node))


def _reaches(node: Path, wanted: str) -> bool:
    return (node / "dev").read_text().strip() == wanted or any(_reaches(below, wanted) for below in _below(node))


def _below(node: Path) -> list[Path]:
    """Return the devices that a device is made of; a partition has no such list."""
    slaves = node / "slaves"
    return [Path("/sys/class/block") / below.name for below in slaves.iterdir()] if slaves.is_dir() else []

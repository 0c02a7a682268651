"""Block devices: what they are, what they hold, who uses them.

Uses: blkid, wipefs (util-linux).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError, ProgramError
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# blkid(8), "EXIT STATUS": 2 with --probe means that nothing was recognised; 8 that several things were.
_BLKID_NOTHING = 2
_BLKID_AMBIVALENT = 8

_CLASS = Path("/sys/class/block")
_SECTOR = 512
_BOOT_SIGNATURE = b"\x55\xaa"

_HEAD = 16 << 20
_TAIL = 4 << 20
_CHUNK = 1 << 20
_TO_START = 1.0  # seconds that a program takes to start, at most


@dataclasses.dataclass(frozen=True)
class Device:
    """A block device as it was at one moment; two looks at the same one are equal.

    path: as it was asked for; node: what that led to, symbolic links followed. number: "major:minor". sequence: the
    kernel's running number of the disk, "" before Linux 5.15: another disk that got the same node has another. size: in
    bytes. model: what the disk calls itself, "" if it does not.
    """

    path: str
    node: str
    number: str
    sequence: str
    size: int
    model: str

    def __str__(self) -> str:
        names = ", ".join(name for name in (self.model, readable(self.size)) if name)
        return f"{self.path} ({names})" if self.path == self.node else f"{self.path} ({self.node}, {names})"


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


def look_up(path: str) -> Device:
    """Find out which device `path` leads to now. Raises DeviceError unless it is a block device."""
    if not is_block_device(path):
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises on a name that is too long
            raise DeviceError(f"{path}: no such device", 'check "dev" in the configuration against the output of lsblk')
        raise DeviceError(f"{path}: is not a block device", "see what there is: lsblk")
    node = os.path.realpath(path)
    device = Path(node).stat().st_rdev
    number = _number(device)
    known = Path("/sys/dev/block", number).resolve()
    disk = known.parent if (known / "partition").exists() else known
    return Device(
        path=path,
        node=node,
        number=number,
        sequence=_attribute(disk / "diskseq"),
        size=_SECTOR * int(_attribute(known / "size") or 0),
        model=_attribute(disk / "device/model") or _attribute(disk / "loop/backing_file"),
    )


def _number(device: int) -> str:
    """Return a device's number as the kernel writes it. device: as stat(2) has it."""
    return f"{os.major(device)}:{os.minor(device)}"


def require_same(descriptor: int, device: Device) -> None:
    """Raise DeviceError unless what was opened is the device that was looked up."""
    if _number(os.fstat(descriptor).st_rdev) != device.number:
        raise DeviceError(
            f"{device.node} is another device than a moment ago",
            f"nothing was changed; see what it is: lsblk {device.node}",
        )


def _attribute(path: Path) -> str:
    """Return a line of sysfs, "" where the kernel or the driver has none."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return ""
    return "".join(char for char in text if char.isprintable())


def readable(size: int) -> str:
    """Return a number of bytes as a person would say it."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    power = min(len(units) - 1, max(0, size.bit_length() - 1) // 10)
    return f"{size / (1 << 10 * power):.1f}".removesuffix(".0") + f" {units[power]}"


def _claimed(path: str, mode: int) -> int:
    """Open a device that nobody else uses. Raises OSError, EBUSY when it is still in use after a moment.

    A program that another thread starts has a copy of each of our descriptors until it runs: what was closed here may
    be claimed for that long.
    """
    until = time.monotonic() + _TO_START
    while True:
        try:
            return os.open(path, mode | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(0.02)


def require_unused(path: str) -> None:
    """Raise DeviceError when somebody uses the device: mounted, swap, below another mapping, opened exclusively.

    The kernel refuses O_EXCL on a block device that is claimed; no list of users could be as complete.
    """
    try:
        os.close(_claimed(path, os.O_RDONLY))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceError(
                f"{path}: is in use (mounted, swap, or part of another device)",
                f"see who uses it: lsblk {path}",
            ) from None
        raise DeviceError(f"{path}: cannot be opened: {error.strerror}") from None


def signature(path: str, passing_over: Sequence[str] = ()) -> Signature | None:
    """Look at what the device holds; None when nothing was recognised.

    passing_over: kinds that are not looked for. Raises DeviceError when the device cannot be read, or when what it
    holds is contradictory: neither is blank.
    """
    # its long options are younger than util-linux 2.32: -p is --probe, -n --match-types, -o --output
    but = ["-n", ",".join(f"no{kind}" for kind in passing_over)] if passing_over else []
    try:
        status, output = run(["blkid", "-p", *but, "-o", "export", path], accept=(0, _BLKID_NOTHING, _BLKID_AMBIVALENT))
    except ProgramError as error:
        raise DeviceError(f"{path}: cannot tell what is on it: {error.what}") from None
    tags = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if status == _BLKID_AMBIVALENT or (tags.get("TYPE") == "crypto_LUKS" and _has_boot_signature(path)):
        raise DeviceError(
            f"{path}: holds signatures of several kinds",
            f"look at them: wipefs --no-act {path}; if they are not needed: wipefs --all {path}",
        )
    kind = tags.get("TYPE") or tags.get("PTTYPE")
    if status == _BLKID_NOTHING or not kind:
        _require_readable(path)  # or blkid says the same
        return None
    return Signature(kind, tags.get("VERSION", ""), tags.get("SUBSYSTEM", ""))


def tags(path: str) -> dict[str, str]:
    """Return what libblkid says of a device's content, {} where it recognizes nothing, or several things."""
    accept = (0, _BLKID_NOTHING, _BLKID_AMBIVALENT)
    status, output = run(["blkid", "-p", "-o", "export", path], accept=accept)
    lines = () if status else (line.split("=", 1) for line in output.splitlines() if "=" in line)
    # a shell is to be able to read it: what means something to one comes after a backslash
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in lines}


def _has_boot_signature(path: str) -> bool:
    """Tell whether a device begins as one with partitions does; no LUKS2 header has anything in that place.

    Programs that make partitions leave what is before their table as it is, the beginning of a header included, and
    libblkid then takes that for the whole.
    """
    try:
        with Path(path).open("rb", buffering=0) as device:
            return device.read(_SECTOR).endswith(_BOOT_SIGNATURE)
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read: {error.strerror}") from None


def _require_readable(path: str) -> None:
    """Raise DeviceError unless all can be read that is looked at to find out what a device holds."""
    try:
        with Path(path).open("rb", buffering=0) as device:
            for start, length in probed(device.seek(0, os.SEEK_END)):
                device.seek(start)
                for _ in range(0, length, _CHUNK):
                    device.read(_CHUNK)
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read: {error.strerror}") from None


def probed(size: int) -> list[tuple[int, int]]:
    """Return what programs read of a device to find out what it holds, and more, as places and lengths in bytes.

    libblkid 2.36 to 2.41 read up to 4 MiB from the beginning, and the last 1.5 MiB; file(1) reads up to 7 MiB.
    """
    return [(0, min(_HEAD, size)), (max(0, size - _TAIL), min(_TAIL, size))]


def bytes_written(path: str) -> int:
    """Return how many bytes were written to a device since it is there; 0 for what is none.

    Source: linux/Documentation/block/stat.rst, 7th field: sectors of 512 bytes.
    """
    if not is_block_device(path):
        return 0
    fields = _attribute(Path("/sys/dev/block", _number(Path(path).stat().st_rdev), "stat")).split()
    return _SECTOR * int(fields[6]) if len(fields) > 6 else 0


def clear(path: str, regions: Sequence[tuple[int, int]]) -> None:
    """Write zeros to parts of a device, each given by its beginning and its length in bytes; done when they are on it.

    Raises DeviceError when the device does not take them.
    """
    blank = memoryview(bytes(_CHUNK))
    with writing(path) as target:
        for start, length in regions:
            for done in range(0, length, len(blank)):
                write(target, blank[: length - done], start + done)


@contextmanager
def writing(path: str) -> Iterator[int]:
    """Yield a descriptor to write to a device that nobody else uses; at the end all is on the disk.

    Raises DeviceError when the device is in use or does not take what is written.
    """
    try:
        target = _claimed(path, os.O_RDWR)
        try:
            yield target
            os.fsync(target)
        finally:
            os.close(target)
    except OSError as error:
        raise DeviceError(f"{path}: cannot be written: {error.strerror}") from None


def flush(path: str) -> None:
    """Have all that was written to a device on it. Raises DeviceError when it did not take all of it.

    A program that only closes what it has written to does not learn of that; see fsync(2).
    """
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(target)
        finally:
            os.close(target)
    except OSError as error:
        raise DeviceError(f"{path}: not all could be written: {error.strerror}") from None


def write(target: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` to a descriptor, from the byte `offset` on."""
    while data:
        written = os.pwrite(target, data, offset)
        data, offset = data[written:], offset + written


def erase_signatures(path: str) -> None:
    """Make what a device holds unrecognizable, wherever on it that is written. Raises ProgramError."""
    run(["wipefs", "--all", path])


def mapping(name: str) -> Mapping | None:
    """Find the device-mapper device called `name`; None when there is none."""
    return next((mapping for mapping in _mappings() if mapping.name == name), None)


def mappings() -> list[str]:
    """Return the names of all device-mapper devices."""
    return [mapping.name for mapping in _mappings()]


def _mappings() -> Iterator[Mapping]:
    for device in _CLASS.glob("dm-*/dm"):
        try:
            name, uuid = ((device / field).read_text().rstrip("\n") for field in ("name", "uuid"))
        except OSError:
            continue  # it went away between the listing and the look, or is just going
        yield Mapping(name, uuid, device.parent)


def number(of: Mapping) -> str:
    """Return the "major:minor" of a device-mapper device."""
    return _attribute(of.node / "dev")


def size(of: Mapping) -> int:
    """Return the bytes of a device-mapper device."""
    return _SECTOR * int(_attribute(of.node / "size") or 0)


def identity(of: Mapping) -> str:
    """Return what no other device-mapper device has as long as the machine runs.

    Before Linux 5.15, which numbers disks as they come, another may have it once this one is gone.
    """
    return f"{_attribute(of.node / 'dev')} {_attribute(of.node / 'diskseq')}".strip()


def encrypts(top: Mapping, path: str) -> bool:
    """Tell whether a mapping is one of cryptsetup and lies, through any number of layers, on the device `path`."""
    try:
        wanted = _number(Path(path).stat().st_rdev)
    except OSError:
        return False  # it has just gone
    return top.uuid.startswith("CRYPT-") and any(_reaches(below, wanted) for below in _below(top.node))


def lies_on(top: str, below: str) -> bool:
    """Tell whether the device-mapper device of one name lies right on that of another."""
    found, wanted = mapping(top), mapping(below)
    return bool(found and wanted and wanted.node.name in [node.name for node in _below(found.node)])


def backing_files(of: Mapping) -> list[str]:
    """Return the files of the loop devices that a mapping lies on, through any number of layers."""
    return _files_below(of.node)


def _files_below(node: Path) -> list[str]:
    found = []
    for below in _below(node):
        disk = below.resolve().parent if (below / "partition").exists() else below
        file = _attribute(disk / "loop/backing_file")
        found += [file] if file else _files_below(below)
    return found


def _reaches(node: Path, wanted: str) -> bool:
    return _attribute(node / "dev") == wanted or any(_reaches(below, wanted) for below in _below(node))


def _below(node: Path) -> list[Path]:
    """Return the devices that a device is made of; a partition has no such list."""
    try:
        return [_CLASS / below.name for below in (node / "slaves").iterdir()]
    except OSError:
        return []

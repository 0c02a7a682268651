"""Block devices: what they are, what they hold, whether they are in use.

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
from cryptpilot_boot.system import files, sysfs
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# blkid(8), "EXIT STATUS": 2 with --probe means that nothing was recognised; 8 that several things were.
_BLKID_NOTHING = 2
_BLKID_AMBIVALENT = 8

_BOOT_SIGNATURE = b"\x55\xaa"

_HEAD = 16 << 20
_TAIL = 4 << 20
_CHUNK = 1 << 20
_TO_START = 1.0  # seconds that a program takes to start, at most


@dataclasses.dataclass(frozen=True)
class Device:
    """A block device at one moment. Two values of the same device are equal.

    path: as it was asked for; node: the same, symbolic links followed. number: "major:minor". sequence: the kernel's
    running number of the disk, "" before Linux 5.15; it tells apart two disks that have the same node one after the
    other. size: in bytes. model: the name that the disk gives itself, "" for none.
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
    """What a device holds.

    kind: the name libblkid has for it ("ext4", "crypto_LUKS", "dos" for a partition table, ...); version: that
    of the format; subsystem: that field of a LUKS2 header, "" for all else.
    """

    kind: str
    version: str = ""
    subsystem: str = ""

    def __str__(self) -> str:
        names = {"crypto_LUKS": f"LUKS{self.version}"}
        return names.get(self.kind, self.kind)


def is_block_device(path: str) -> bool:
    """Tell whether `path` exists and is a block device."""
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return False


def look_up(path: str) -> Device:
    """Return the device that `path` leads to now. Raises DeviceError unless it is a block device."""
    if not is_block_device(path):
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises on a name that is too long
            raise DeviceError(f"{path}: no such device", 'check "dev" in the configuration against the output of lsblk')
        raise DeviceError(f"{path}: is not a block device", "see what there is: lsblk")
    node = os.path.realpath(path)
    device = Path(node).stat().st_rdev
    number = sysfs.number(device)
    known = Path("/sys/dev/block", number).resolve()
    disk = known.parent if (known / "partition").exists() else known
    return Device(
        path=path,
        node=node,
        number=number,
        sequence=sysfs.attribute(disk / "diskseq"),
        size=sysfs.SECTOR * int(sysfs.attribute(known / "size") or 0),
        model=sysfs.attribute(disk / "device/model") or sysfs.attribute(disk / "loop/backing_file"),
    )


def require_same(descriptor: int, device: Device) -> None:
    """Raise DeviceError unless a descriptor is of this device."""
    if sysfs.number(os.fstat(descriptor).st_rdev) != device.number:
        raise DeviceError(
            f"{device.node} is another device than a moment ago",
            f"nothing was changed; see what it is: lsblk {device.node}",
        )


def readable(size: int) -> str:
    """Return a number of bytes with the unit that a person would use."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    power = min(len(units) - 1, max(0, size.bit_length() - 1) // 10)
    return f"{size / (1 << 10 * power):.1f}".removesuffix(".0") + f" {units[power]}"


def _claimed(path: str, mode: int) -> int:
    """Open a device that is not in use. Raises OSError: EBUSY when it is still in use after a second.

    A program that another thread starts has a copy of each of our descriptors until it runs. So a device that was
    closed here may be in use for that long.
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
    """Raise DeviceError when the device is in use: mounted, swap, below a mapping, opened exclusively.

    The kernel refuses O_EXCL for a block device that is in use. No list of users could be as complete.
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
    """Return what the device holds; None when nothing was recognised.

    passing_over: kinds that are not searched for. Raises DeviceError when the device cannot be read, or holds several
    things: such a device is not blank.
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
    """Return libblkid's tags of a device; {} if it recognizes nothing, or several things."""
    accept = (0, _BLKID_NOTHING, _BLKID_AMBIVALENT)
    status, output = run(["blkid", "-p", "-o", "export", path], accept=accept)
    lines = () if status else (line.split("=", 1) for line in output.splitlines() if "=" in line)
    # written for a shell: a backslash is before each character that a shell would interpret
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in lines}


def _has_boot_signature(path: str) -> bool:
    """Tell whether a device has the signature of a partition table, in a place that every LUKS2 header leaves empty.

    Programs that make partitions keep the bytes before their table, such as the beginning of a header. libblkid then
    takes the device for a LUKS2 volume.
    """
    try:
        with Path(path).open("rb", buffering=0) as device:
            return device.read(sysfs.SECTOR).endswith(_BOOT_SIGNATURE)
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read: {error.strerror}") from None


def _require_readable(path: str) -> None:
    """Raise DeviceError unless the parts of a device that show what it holds can be read."""
    try:
        with Path(path).open("rb", buffering=0) as device:
            for start, length in probed(device.seek(0, os.SEEK_END)):
                device.seek(start)
                for _ in range(0, length, _CHUNK):
                    device.read(_CHUNK)
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read: {error.strerror}") from None


def probed(size: int) -> list[tuple[int, int]]:
    """Return the parts of a device that show what it holds, each by its beginning and its length in bytes.

    libblkid 2.36 to 2.41 read up to 4 MiB from the beginning and the last 1.5 MiB; file(1) reads up to 7 MiB.
    """
    return [(0, min(_HEAD, size)), (max(0, size - _TAIL), min(_TAIL, size))]


def bytes_written(path: str) -> int:
    """Return how many bytes were written to a device since it appeared; 0 for a path that is no device.

    Source: linux/Documentation/block/stat.rst, 7th field: sectors of 512 bytes.
    """
    if not is_block_device(path):
        return 0
    fields = sysfs.attribute(Path("/sys/dev/block", sysfs.number(Path(path).stat().st_rdev), "stat")).split()
    return sysfs.SECTOR * int(fields[6]) if len(fields) > 6 else 0


def clear(path: str, regions: Sequence[tuple[int, int]]) -> None:
    """Write zeros to parts of a device, each given by its beginning and its length in bytes, and wait for the disk.

    Raises DeviceError when they cannot be written.
    """
    blank = memoryview(bytes(_CHUNK))
    with writing(path) as target:
        for start, length in regions:
            for done in range(0, length, len(blank)):
                write(target, blank[: length - done], start + done)


@contextmanager
def writing(path: str) -> Iterator[int]:
    """Yield a descriptor to write to a device that is not in use. At the end, wait until all data is on the disk.

    Raises DeviceError when the device is in use or cannot be written.
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
    """Wait until all data that was written to a device is on the disk. Raises DeviceError when that fails."""
    try:
        files.sync(path)
    except OSError as error:
        raise DeviceError(f"{path}: not all could be written: {error.strerror}") from None


def write(target: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` to a descriptor, from the byte `offset` on."""
    while data:
        written = os.pwrite(target, data, offset)
        data, offset = data[written:], offset + written


def erase_signatures(path: str) -> None:
    """Erase all signatures of a device, so that nothing is recognized on it. Raises ProgramError."""
    run(["wipefs", "--all", path])

"""LUKS2 headers, held in memory.

A header is written to the device only when it is complete. A device is opened by a header in memory, built from the
checked values of the device's own header. cryptsetup uses only that, whatever the host writes to the disk meanwhile.
system.luks_metadata says what is allowed, system.luks_copies knows the format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, luks_copies, luks_metadata, luks_objects
from cryptpilot_boot.system.luks_metadata import Facts as Facts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Check = Callable[["Mapping[str, Any]", int, str], Facts]
"""Returns what a header's JSON says, as `luks_metadata.check` does."""
SIZE = 16 << 20
"""Bytes before the data: the room cryptsetup leaves for a header when nothing else is asked of it."""

_BLOCK = 1 << 20


class Header:
    """A LUKS2 header in a file without a name, for cryptsetup's --header. To be used in a `with` block."""

    def __init__(self, size: int = SIZE) -> None:
        self._file = open(os.memfd_create("luks2-header", os.MFD_CLOEXEC), "r+b", buffering=0)  # noqa: PTH123, SIM115
        self._file.truncate(size)

    @property
    def descriptor(self) -> int:
        """The file's descriptor."""
        return self._file.fileno()

    @property
    def path(self) -> str:
        """The path by which a program finds the file that was given `descriptor`."""
        return f"/proc/self/fd/{self.descriptor}"

    def write_to(self, device: block.Device) -> None:
        """Put the header on a device; whatever stood in its place, old key slots included, is gone.

        The first sector is written last: it identifies the device. Raises DeviceError.
        """
        with block.writing(device.node) as target:
            block.require_same(target, device)
            for start in range(luks_copies.BINARY, SIZE, _BLOCK):
                block.write(target, os.pread(self.descriptor, min(_BLOCK, SIZE - start), start), start)
            os.fsync(target)
            block.write(target, os.pread(self.descriptor, luks_copies.BINARY, 0), 0)

    def __enter__(self) -> Header:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the header."""
        self._file.close()


def mark(device: str) -> str:
    """Return the subsystem that the header at the beginning of a device names, "" without one.

    It says whose header it is, not that the header is whole. Raises DeviceError when the device cannot be read.
    """
    return _field(device, luks_copies.SUBSYSTEM)


def is_foreign(device: str, marks: Collection[str]) -> bool:
    """Tell whether a device begins with a header of LUKS, of whatever version, that names none of these subsystems.

    Raises DeviceError when the device cannot be read.
    """
    return _head(device).startswith(luks_copies.FIRST) and mark(device) not in marks


def uuid(device: str) -> str:
    """Return the UUID that the header at the beginning of a device names, as `mark` does the subsystem."""
    return _field(device, luks_copies.UUID)


def label(device: str) -> str:
    """Return the label that the header at the beginning of a device names, as `mark` does the subsystem."""
    return _field(device, luks_copies.LABEL)


def _head(device: str) -> bytes:
    try:
        with Path(device).open("rb", buffering=0) as source:
            return source.read(luks_copies.BINARY)
    except OSError as error:
        raise DeviceError(f"{device}: cannot be read: {error.strerror}") from None


def _field(device: str, place: slice) -> str:
    head = _head(device)
    if not head.startswith(luks_copies.FIRST) or int.from_bytes(head[luks_copies.VERSION], "big") != luks_copies.LUKS2:
        return ""
    return head[place].split(b"\0", 1)[0].decode("ascii", "replace")


class Distrusted(DeviceError):
    """A header has a value that no header of ours has. reason: what that is; nothing of it is the header's own text."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"the LUKS2 header of {name} is not to be trusted: {reason}",
            f"unless you know who changed it, treat this disk as tampered with; look at it: cryptsetup luksDump {name}",
        )
        self.reason = reason


class Unfinished(DeviceError):
    """A reencryption of the device was interrupted, and only cryptsetup can continue it."""


def copy_from(device: str, name: str = "", check: Check = luks_metadata.check) -> tuple[Header, Facts]:
    """Check a device's header against the allow list, and build a header in memory from the checked values.

    name: what a person knows the device by, if that is not its path. check: the allow list, by default that of a
    complete volume; see system.luks_conversion. cryptsetup is given what this returns, and so can go by nothing else.
    There are no tokens in it, or else cryptsetup would try to open the device by them before it takes a passphrase.
    Raises DeviceError: Distrusted for a header with a value that none of ours has, Unfinished while a reencryption has
    to be finished first, and another if there is no usable header.
    """
    name = name or device
    try:
        source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"{name}: cannot be opened: {error.strerror}") from None
    try:
        copies = list(luks_copies.copies(source))
        if not copies:
            raise DeviceError(
                f"{name}: the LUKS2 header is damaged: no copy of it is whole",
                "put a backup of the header back, if there is one: cryptpilot header restore VOLUME FILE",
            )
        # the copy that cryptsetup uses
        return _copy(source, luks_copies.newest(copies), check)
    except luks_metadata.CutShort:
        raise Unfinished(
            f"{name}: a reencryption is not finished, and was cut short in the middle of a step",
            "have cryptsetup repair that step and go on, with the volume's secret:"
            f" cryptsetup repair {name} && cryptsetup reencrypt --resume-only {name}",
        ) from None
    except luks_objects.Unlisted as error:
        raise Distrusted(name, str(error)) from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        # not by chance: the checksum is right
        raise DeviceError(
            f"{name}: the LUKS2 header is invalid ({type(error).__name__})",
            f"look at it: cryptsetup luksDump {name}",
        ) from None
    except OSError as error:
        raise DeviceError(f"{name}: its LUKS2 header cannot be read: {error.strerror}") from None
    finally:
        os.close(source)


def metadata(descriptor: int) -> dict[str, Any]:
    """Return the JSON of a header that was checked, or that cryptsetup has just made. Raises DeviceError for none."""
    return _newest(descriptor).metadata()


def replace_metadata(descriptor: int, changed: Mapping[str, Any]) -> None:
    """Have such a header say something else; at each moment one of the two copies of its metadata is whole.

    Raises ValueError if there is no room.
    """
    found = _newest(descriptor)
    size = len(found.content)
    for offset, magic in ((0, luks_copies.FIRST), (size, luks_copies.SECOND)):
        content = bytearray(found.content)
        content[luks_copies.MAGIC] = magic
        content[luks_copies.OFFSET] = offset.to_bytes(8, "big")
        content[luks_copies.SEQUENCE] = (found.sequence + 1).to_bytes(8, "big")
        block.write(descriptor, luks_copies.filled(content, changed), offset)
        os.fsync(descriptor)


def _newest(descriptor: int) -> luks_copies.Copy:
    copies = list(luks_copies.copies(descriptor))
    if not copies:
        raise DeviceError("there is no LUKS2 header", "please report this")
    return luks_copies.newest(copies)


def _copy(source: int, found: luks_copies.Copy, check: Check) -> tuple[Header, Facts]:
    """Check a copy of the metadata, and write a header that says what was checked, with the key slots it names."""
    facts = check(found.metadata(), len(found.content), found.uuid)
    header = Header(facts.data)
    try:
        for offset, magic in ((0, luks_copies.FIRST), (len(found.content), luks_copies.SECOND)):
            block.write(header.descriptor, _written(facts, found, magic, offset), offset)
        for area in facts.areas:
            _copy_span(source, header.descriptor, area.offset, area.size)
    except BaseException:
        header.close()
        raise
    return header, facts


def _written(facts: Facts, found: luks_copies.Copy, magic: bytes, offset: int) -> bytes:
    """Return a copy of the metadata, built only from checked values. Raises ValueError if there is no room."""
    size = len(found.content)
    content = bytearray(size)
    for field, value in (
        (luks_copies.MAGIC, magic),
        (luks_copies.VERSION, luks_copies.LUKS2.to_bytes(2, "big")),
        (luks_copies.SIZE, size.to_bytes(8, "big")),
        (luks_copies.SEQUENCE, found.content[luks_copies.SEQUENCE]),
        (luks_copies.ALGORITHM, b"sha256"),
        (luks_copies.UUID, facts.uuid.encode()),
        (luks_copies.OFFSET, offset.to_bytes(8, "big")),
    ):
        content[field] = value.ljust(field.stop - field.start, b"\0")
    return luks_copies.filled(content, facts.json)


def _copy_span(source: int, target: int, start: int, size: int) -> None:
    """Copy so many bytes. Raises ValueError when there are not so many."""
    for done in range(0, size, _BLOCK):
        wanted = min(_BLOCK, size - done)
        data = os.pread(source, wanted, start + done)
        if len(data) != wanted:
            raise ValueError
        block.write(target, data, start + done)

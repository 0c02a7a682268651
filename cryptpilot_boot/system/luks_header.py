"""LUKS2 headers, held in memory.

A header is written to the device only when it is complete. A device is opened by a header in memory that is put
together from what was checked of the device's own: whatever the host writes to the disk meanwhile, cryptsetup goes by
nothing else. system.luks_metadata says what is allowed.

Source of the format: the LUKS2 On-Disk Format Specification, version 1.1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, luks_metadata, luks_objects
from cryptpilot_boot.system.luks_metadata import Facts as Facts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SIZE = 16 << 20
"""Bytes before the data: the room cryptsetup leaves for a header when nothing else is asked of it."""

_FIRST, _SECOND = b"LUKS\xba\xbe", b"SKUL\xba\xbe"  # how the two copies of the metadata begin
_BINARY = 4096  # bytes before the JSON
_SIZES = tuple(1 << shift for shift in range(14, 23))  # what a copy of the metadata may take: 16 KiB to 4 MiB
_LONGEST = 1 << 20  # bytes of JSON, of which cryptsetup writes some thousands: what is parsed takes room in memory
_LUKS2 = 2
_MAGIC = slice(0x0, 0x6)
_VERSION = slice(0x6, 0x8)
_SIZE = slice(0x8, 0x10)
_SEQUENCE = slice(0x10, 0x18)
_LABEL = slice(0x18, 0x48)
_ALGORITHM = slice(0x48, 0x68)
_UUID = slice(0xA8, 0xD0)
_SUBSYSTEM = slice(0xD0, 0x100)
_OFFSET = slice(0x100, 0x108)
_CHECKSUM = slice(0x1C0, 0x200)
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

        The first sector goes last: by it the device is known for what it is. Raises DeviceError.
        """
        with block.writing(device.node) as target:
            block.require_same(target, device)
            for start in range(_BINARY, SIZE, _BLOCK):
                block.write(target, os.pread(self.descriptor, min(_BLOCK, SIZE - start), start), start)
            os.fsync(target)
            block.write(target, os.pread(self.descriptor, _BINARY, 0), 0)

    def __enter__(self) -> Header:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the header."""
        self._file.close()


def mark(device: str) -> str:
    """Return the subsystem that the header at the beginning of a device names, "" when there is none.

    It says whose header it is, not that the header is whole. Raises DeviceError when the device cannot be read.
    """
    return _field(device, _SUBSYSTEM)


def is_foreign(device: str, marks: Collection[str]) -> bool:
    """Tell whether a device begins with a header of LUKS, of whatever version, that names none of these subsystems.

    Raises DeviceError when the device cannot be read.
    """
    return _head(device).startswith(_FIRST) and mark(device) not in marks


def uuid(device: str) -> str:
    """Return the UUID that the header at the beginning of a device names, as `mark` does the subsystem."""
    return _field(device, _UUID)


def label(device: str) -> str:
    """Return the label that the header at the beginning of a device names, as `mark` does the subsystem."""
    return _field(device, _LABEL)


def _head(device: str) -> bytes:
    try:
        with Path(device).open("rb", buffering=0) as source:
            return source.read(_BINARY)
    except OSError as error:
        raise DeviceError(f"{device}: cannot be read: {error.strerror}") from None


def _field(device: str, place: slice) -> str:
    head = _head(device)
    if not head.startswith(_FIRST) or int.from_bytes(head[_VERSION], "big") != _LUKS2:
        return ""
    return head[place].split(b"\0", 1)[0].decode("ascii", "replace")


class Distrusted(DeviceError):
    """A header says what no header of ours says. reason: what that is; nothing of it is the header's own text."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"the LUKS2 header of {name} is not to be trusted: {reason}",
            f"unless you know who changed it, take this disk as tampered with; look at it: cryptsetup luksDump {name}",
        )
        self.reason = reason


class Unfinished(DeviceError):
    """A reencryption of the device was cut short where only cryptsetup can go on."""


def copy_from(device: str, name: str = "") -> tuple[Header, Facts]:
    """Check a device's header against what is allowed, and put what was checked together in memory.

    name: what a person knows the device by, if that is not its path. cryptsetup is given what this returns, and so can
    go by nothing else. There are no tokens in it, or else cryptsetup would try to open the device by them before it
    takes a passphrase. Raises DeviceError: Distrusted for a header that says what none of ours does, Unfinished while
    its reencryption has to be finished first, and another when there is no header that could be used.
    """
    name = name or device
    try:
        source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"{name}: cannot be opened: {error.strerror}") from None
    try:
        copies = list(_copies(source))
        if not copies:
            raise DeviceError(
                f"{name}: the LUKS2 header is damaged: no copy of it is whole",
                "put a backup of the header back, if there is one: cryptpilot header restore VOLUME FILE",
            )
        # the one that cryptsetup goes by
        return _copy(source, max(copies, key=lambda one: (one.sequence, -one.offset)))
    except luks_metadata.Unfinished:
        raise Unfinished(
            f"{name}: a reencryption is not finished, and was cut short in the middle of a step",
            "have cryptsetup mend that step and go on, with the volume's secret:"
            f" cryptsetup repair {name} && cryptsetup reencrypt --resume-only {name}",
        ) from None
    except luks_objects.Unlisted as error:
        raise Distrusted(name, str(error)) from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        # not by chance: the checksum is right
        raise DeviceError(
            f"{name}: the LUKS2 header makes no sense ({type(error).__name__})",
            f"look at it: cryptsetup luksDump {name}",
        ) from None
    except OSError as error:
        raise DeviceError(f"{name}: its LUKS2 header cannot be read: {error.strerror}") from None
    finally:
        os.close(source)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """One of the two copies of the metadata. offset: bytes from the device's beginning."""

    offset: int
    content: bytes

    @property
    def sequence(self) -> int:
        """The number of changes so far: of two copies, the newer has the larger."""
        return int.from_bytes(self.content[_SEQUENCE], "big")

    @property
    def uuid(self) -> str:
        """What the header is called. Raises ValueError when that is no UUID."""
        text = self.content[_UUID].split(b"\0", 1)[0].decode("ascii")
        if not re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
            raise ValueError
        return text

    def metadata(self) -> dict[str, Any]:
        """Return the JSON object. Raises ValueError when it is none, and RecursionError."""
        text = self.content[_BINARY:].split(b"\0", 1)[0]
        if len(text) > _LONGEST:
            raise ValueError
        found = json.loads(
            text.decode(), object_pairs_hook=_unambiguous, parse_float=_nothing, parse_constant=_no_number
        )
        if not isinstance(found, dict):
            raise TypeError
        # Half a character is no text; and where a string ends at its first NUL, "a" and "a\0b" are one.
        if "\\u0000" in json.dumps(found, ensure_ascii=False).encode().decode():
            raise ValueError
        return found


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members: of two with one name, who knows which another reader takes."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _nothing(_: str) -> None:
    """Read a fraction, which only somebody's token may hold, as what no member of a header is."""


def _no_number(_: str) -> None:
    """Refuse what is no JSON."""
    raise ValueError


def _copies(source: int) -> Iterator[_Copy]:
    """Find the copies of the metadata whose checksum is right, where cryptsetup looks for them."""
    first = _intact(source, 0, _FIRST)
    if first:
        yield first
    for offset in [len(first.content)] if first else _SIZES:
        second = _intact(source, offset, _SECOND)
        if second and len(second.content) == offset:
            yield second
            return


def _intact(source: int, offset: int, magic: bytes) -> _Copy | None:
    """Return the copy of the metadata at a place, if there is one and it has the checksum it says."""
    binary = os.pread(source, _BINARY, offset)
    size = int.from_bytes(binary[_SIZE], "big")
    if not binary.startswith(magic) or size not in _SIZES:
        return None
    copy = os.pread(source, size, offset)
    if len(copy) != size or copy[: _SIZE.stop] != binary[: _SIZE.stop]:
        return None
    version, place = (int.from_bytes(copy[field], "big") for field in (_VERSION, _OFFSET))
    digest = _digest(copy)
    if (version, place) != (_LUKS2, offset) or not digest or not copy[_CHECKSUM].startswith(digest):
        return None
    return _Copy(offset, copy)


def _digest(copy: bytes | bytearray) -> bytes:
    """Return the checksum that a copy of the metadata should have, b"" when it names none that there is."""
    algorithm = copy[_ALGORITHM].split(b"\0", 1)[0].decode("ascii", "replace")
    blank = bytes(_CHECKSUM.stop - _CHECKSUM.start)
    try:
        digest = hashlib.new(algorithm, copy[: _CHECKSUM.start] + blank + copy[_CHECKSUM.stop :]).digest()
    except (TypeError, ValueError):  # no digest of that name, or one without a length
        return b""
    return digest[: len(blank)]


def _copy(source: int, found: _Copy) -> tuple[Header, Facts]:
    """Check a copy of the metadata, and write a header that says what was checked, with the key slots it names."""
    facts = luks_metadata.check(found.metadata(), len(found.content), found.uuid)
    header = Header(facts.data)
    try:
        for offset, magic in ((0, _FIRST), (len(found.content), _SECOND)):
            block.write(header.descriptor, _written(facts, found, magic, offset), offset)
        for area in facts.areas:
            _copy_span(source, header.descriptor, area.offset, area.size)
    except BaseException:
        header.close()
        raise
    return header, facts


def _written(facts: Facts, found: _Copy, magic: bytes, offset: int) -> bytes:
    """Return a copy of the metadata, made of what was checked alone. Raises ValueError if there is no room."""
    size = len(found.content)
    text = json.dumps(facts.json, separators=(",", ":")).encode()
    if len(text) >= size - _BINARY:
        raise ValueError
    content = bytearray(size)
    for field, value in (
        (_MAGIC, magic),
        (_VERSION, _LUKS2.to_bytes(2, "big")),
        (_SIZE, size.to_bytes(8, "big")),
        (_SEQUENCE, found.content[_SEQUENCE]),
        (_ALGORITHM, b"sha256"),
        (_UUID, facts.uuid.encode()),
        (_OFFSET, offset.to_bytes(8, "big")),
    ):
        content[field] = value.ljust(field.stop - field.start, b"\0")
    content[_BINARY : _BINARY + len(text)] = text
    content[_CHECKSUM] = _digest(content).ljust(_CHECKSUM.stop - _CHECKSUM.start, b"\0")
    return bytes(content)


def _copy_span(source: int, target: int, start: int, size: int) -> None:
    """Copy so many bytes. Raises ValueError when there are not so many."""
    for done in range(0, size, _BLOCK):
        wanted = min(_BLOCK, size - done)
        data = os.pread(source, wanted, start + done)
        if len(data) != wanted:
            raise ValueError
        block.write(target, data, start + done)

"""LUKS2 headers, held in memory.

A header is written to the device only when it is complete, and a device is opened with a copy of its header that was
looked at before: what cryptsetup then goes by is what was checked, whatever somebody does to the disk meanwhile. The
copy's JSON is written anew from what was read of it, so that no other reader can find anything else in it.

Source of the format: the LUKS2 On-Disk Format Specification, version 1.1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import DeviceError, printable
from cryptpilot_boot.system import block

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 16 << 20
"""Bytes before the data: the room cryptsetup leaves for a header when nothing else is asked of it."""

_FIRST, _SECOND = b"LUKS\xba\xbe", b"SKUL\xba\xbe"  # how the two copies of the metadata begin
_BINARY = 4096  # bytes before the JSON
_SIZES = tuple(1 << shift for shift in range(14, 23))  # what a copy of the metadata may take: 16 KiB to 4 MiB
_SLOTS = 128 << 20  # the most that all key slots may take
_FURTHEST = 1 << 40  # no data begin beyond
_LONGEST = 1 << 20  # bytes of JSON, of which cryptsetup writes some thousands: what is parsed takes room in memory
_LUKS2 = 2
_VERSION = slice(0x6, 0x8)
_SIZE = slice(0x8, 0x10)
_ALGORITHM = slice(0x48, 0x68)
_UUID = slice(0xA8, 0xD0)
_SUBSYSTEM = slice(0xD0, 0x100)
_OFFSET = slice(0x100, 0x108)
_CHECKSUM = slice(0x1C0, 0x200)
_DIGITS = 20  # of a number of 64 bits
_BLOCK = 1 << 20
_SECTOR = 512
_RECOVERY = "systemd-recovery"  # the token by which systemd-cryptenroll too knows the slots of recovery keys


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


def uuid(device: str) -> str:
    """Return the UUID that the header at the beginning of a device names, as `mark` does the subsystem."""
    return _field(device, _UUID)


def _field(device: str, place: slice) -> str:
    try:
        with Path(device).open("rb", buffering=0) as source:
            head = source.read(_BINARY)
    except OSError as error:
        raise DeviceError(f"{device}: cannot be read: {error.strerror}") from None
    if not head.startswith(_FIRST) or int.from_bytes(head[_VERSION], "big") != _LUKS2:
        return ""
    return head[place].split(b"\0", 1)[0].decode("ascii", "replace")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a header says of how the device is encrypted; of all its valid copies together.

    segments: types of the data segments ("crypt"). ciphers: of the data; slot_ciphers: of the key slots. integrity:
    how the data are authenticated ("hmac(sha256)"), "" among them where some are not. uuids: what the header is called.
    volume_keys: digests, with their salt, of the keys that the data are encrypted with. layout: the data segments as
    they are described. room: bytes a device must have for the header and the data. recovery: the tokens that say which
    key slots take recovery keys, each by its number and with the numbers of those slots that there are.
    """

    segments: frozenset[str]
    ciphers: frozenset[str]
    slot_ciphers: frozenset[str]
    integrity: frozenset[str]
    uuids: frozenset[str]
    volume_keys: frozenset[str]
    layout: frozenset[str]
    room: int
    recovery: frozenset[tuple[int, frozenset[int]]]

    @property
    def recovery_slots(self) -> set[int]:
        """Numbers of the key slots that take recovery keys."""
        return {slot for _, slots in self.recovery for slot in slots}


def copy_from(device: str, name: str = "") -> tuple[Header, Facts]:
    """Copy a device's header into memory, and read the copy.

    name: what a person knows the device by, if that is not its path. Only what was understood is copied, so that
    cryptsetup can go by nothing else; and no tokens, or else it would try to open the device by them before it takes a
    passphrase. Raises DeviceError when there is no header that could be used.
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
        try:
            return _copy(source, copies)
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
    def uuid(self) -> str:
        """What the header is called."""
        return printable(self.content[_UUID].split(b"\0", 1)[0].decode("ascii", "replace"))

    def metadata(self) -> dict[str, Any]:
        """Return the JSON object. Raises ValueError when it is none, and RecursionError."""
        text = self.content[_BINARY:].split(b"\0", 1)[0]
        if len(text) > _LONGEST:
            raise ValueError
        found = json.loads(
            text.decode(), object_pairs_hook=_unambiguous, parse_float=_no_number, parse_constant=_no_number
        )
        if not isinstance(found, dict):
            raise TypeError
        return found

    def with_metadata(self, metadata: dict[str, Any]) -> bytes:
        """Return this copy with other JSON and the checksum for that. Raises ValueError if there is no room."""
        text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()
        # where a string ends at its first NUL, "a" and "a\0b" are one
        if b"\\u0000" in text or len(text) >= len(self.content) - _BINARY:
            raise ValueError
        content = bytearray(self.content[:_BINARY] + text.ljust(len(self.content) - _BINARY, b"\0"))
        digest = _digest(content)
        content[_CHECKSUM] = digest.ljust(_CHECKSUM.stop - _CHECKSUM.start, b"\0")
        return bytes(content)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members: of two with one name, who knows which another reader takes."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(_: str) -> None:
    """Refuse what the format has no use for."""
    raise ValueError


def _copies(source: int) -> Iterator[_Copy]:
    """Find the copies of the metadata whose checksum is right, where cryptsetup looks for them; it uses the newer."""
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


def _copy(source: int, copies: list[_Copy]) -> tuple[Header, Facts]:
    """Copy the metadata and the key slots; the rest of the room before the data is left blank."""
    metadata = [copy.metadata() for copy in copies]
    segments = [segment for one in metadata for segment in one["segments"].values()]
    areas = [slot["area"] for one in metadata for slot in one["keyslots"].values()]
    facts = Facts(
        segments=frozenset(_text(segment["type"]) for segment in segments),
        ciphers=frozenset(_text(segment.get("encryption", "")) for segment in segments),
        slot_ciphers=frozenset(_text(area.get("encryption", "")) for area in areas),
        integrity=frozenset(_text(segment.get("integrity", {}).get("type", "")) for segment in segments),
        uuids=frozenset(copy.uuid for copy in copies),
        volume_keys=frozenset(key for one in metadata for key in _volume_keys(one)),
        layout=frozenset(json.dumps(segment, sort_keys=True) for segment in segments),
        room=max(_number(segment["offset"]) + _size(segment) for segment in segments),
        recovery=frozenset(token for one in metadata for token in _recovery(one)),
    )
    spans = {(_number(area["offset"]), _number(area["size"])) for area in areas}
    room = max(_number(segment["offset"]) for segment in segments)
    # Key slots are copied unread: none may come to lie where the metadata do, or where another copy is looked for.
    begin = 2 * max(len(copy.content) for copy in copies)
    if not 0 < room <= _FURTHEST or any(not begin <= start < start + size <= begin + _SLOTS for start, size in spans):
        raise ValueError
    if sum(size for _, size in spans) > _SLOTS:
        raise ValueError
    header = Header(room)
    try:
        for copy, found in zip(copies, metadata):
            block.write(header.descriptor, copy.with_metadata({**found, "tokens": {}}), copy.offset)
        for start, size in spans:
            _copy_span(source, header.descriptor, start, size)
    except BaseException:
        header.close()
        raise
    return header, facts


def _volume_keys(metadata: dict[str, Any]) -> Iterator[str]:
    """Yield what the volume keys of the data are known by."""
    for digest in metadata["digests"].values():
        if digest["segments"]:
            yield f"{_text(digest['salt'])} {_text(digest['digest'])}"


def _recovery(metadata: dict[str, Any]) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield the tokens of recovery keys, each with those of its key slots that are there."""
    there = frozenset(_number(slot) for slot in metadata["keyslots"])
    for number, token in metadata.get("tokens", {}).items():
        if token.get("type") == _RECOVERY:
            yield _number(number), frozenset(_number(slot) for slot in token["keyslots"]) & there


def _size(segment: dict[str, Any]) -> int:
    """Return the bytes of a data segment; of one that takes what there is, the least that can be."""
    return _SECTOR if segment["size"] == "dynamic" else _number(segment["size"])


def _copy_span(source: int, target: int, start: int, size: int) -> None:
    """Copy so many bytes. Raises ValueError when there are not so many."""
    for done in range(0, size, _BLOCK):
        wanted = min(_BLOCK, size - done)
        data = os.pread(source, wanted, start + done)
        if len(data) != wanted:
            raise ValueError
        block.write(target, data, start + done)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    """Read a number as the format has them: in a string, as JSON's own are not good for 64 bits."""
    text = _text(value)
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ValueError
    return int(text)

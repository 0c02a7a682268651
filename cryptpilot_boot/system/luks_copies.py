"""The two copies of the metadata in a LUKS2 header: their places, integrity and content.

Source of the format: the LUKS2 On-Disk Format Specification, version 1.1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FIRST, SECOND = b"LUKS\xba\xbe", b"SKUL\xba\xbe"  # how the two copies of the metadata begin
BINARY = 4096  # bytes before the JSON
_SIZES = tuple(1 << shift for shift in range(14, 23))  # what a copy of the metadata may take: 16 KiB to 4 MiB
_LONGEST = 1 << 20  # bytes of JSON; cryptsetup writes some thousands, and the parsed text takes memory
LUKS2 = 2
MAGIC = slice(0x0, 0x6)
VERSION = slice(0x6, 0x8)
SIZE = slice(0x8, 0x10)
SEQUENCE = slice(0x10, 0x18)
LABEL = slice(0x18, 0x48)
ALGORITHM = slice(0x48, 0x68)
UUID = slice(0xA8, 0xD0)
SUBSYSTEM = slice(0xD0, 0x100)
OFFSET = slice(0x100, 0x108)
_CHECKSUM = slice(0x1C0, 0x200)


@dataclasses.dataclass(frozen=True)
class Copy:
    """One of the two copies of the metadata. offset: bytes from the device's beginning."""

    offset: int
    content: bytes

    @property
    def sequence(self) -> int:
        """The number of changes so far: of two copies, the newer has the larger."""
        return int.from_bytes(self.content[SEQUENCE], "big")

    @property
    def uuid(self) -> str:
        """What the header is called. Raises ValueError when that is no UUID."""
        text = self.content[UUID].split(b"\0", 1)[0].decode("ascii")
        if not re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
            raise ValueError
        return text

    def metadata(self) -> dict[str, Any]:
        """Return the JSON object. Raises ValueError when it is not one, and RecursionError."""
        text = self.content[BINARY:].split(b"\0", 1)[0]
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


def newest(found: Sequence[Copy]) -> Copy:
    """Return the copy of the metadata that cryptsetup uses."""
    return max(found, key=lambda one: (one.sequence, -one.offset))


def filled(content: bytearray, metadata: Mapping[str, Any]) -> bytes:
    """Put JSON into a copy of the metadata, and its checksum. Raises ValueError if there is no room."""
    text = json.dumps(metadata, separators=(",", ":")).encode()
    if len(text) >= len(content) - BINARY:
        raise ValueError
    content[BINARY:] = text.ljust(len(content) - BINARY, b"\0")
    content[_CHECKSUM] = _digest(content).ljust(_CHECKSUM.stop - _CHECKSUM.start, b"\0")
    return bytes(content)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members. Refuse two with one name: another reader may take the other one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _nothing(_: str) -> None:
    """Read a fraction, which only somebody's token may hold, as what no member of a header is."""


def _no_number(_: str) -> None:
    """Refuse a value that is not JSON."""
    raise ValueError


def copies(source: int) -> Iterator[Copy]:
    """Find the copies of the metadata whose checksum is right, where cryptsetup looks for them."""
    first = _intact(source, 0, FIRST)
    if first:
        yield first
    for offset in [len(first.content)] if first else _SIZES:
        second = _intact(source, offset, SECOND)
        if second and len(second.content) == offset:
            yield second
            return


def _intact(source: int, offset: int, magic: bytes) -> Copy | None:
    """Return the copy of the metadata at a place, if there is one and it has the checksum it says."""
    binary = os.pread(source, BINARY, offset)
    size = int.from_bytes(binary[SIZE], "big")
    if not binary.startswith(magic) or size not in _SIZES:
        return None
    copy = os.pread(source, size, offset)
    if len(copy) != size or copy[: SIZE.stop] != binary[: SIZE.stop]:
        return None
    version, place = (int.from_bytes(copy[field], "big") for field in (VERSION, OFFSET))
    digest = _digest(copy)
    if (version, place) != (LUKS2, offset) or not digest or not copy[_CHECKSUM].startswith(digest):
        return None
    return Copy(offset, copy)


def _digest(copy: bytes | bytearray) -> bytes:
    """Return the checksum that a copy of the metadata should have, b"" when it names none that there is."""
    algorithm = copy[ALGORITHM].split(b"\0", 1)[0].decode("ascii", "replace")
    blank = bytes(_CHECKSUM.stop - _CHECKSUM.start)
    try:
        digest = hashlib.new(algorithm, copy[: _CHECKSUM.start] + blank + copy[_CHECKSUM.stop :]).digest()
    except (TypeError, ValueError):  # no digest of that name, or one without a length
        return b""
    return digest[: len(blank)]

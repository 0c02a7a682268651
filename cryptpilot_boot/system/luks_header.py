"""LUKS2 headers, held in memory.

A header is written to the device only when it is complete, and a device is opened with a copy of its header that was
looked at before: what cryptsetup then goes by is what was checked, whatever somebody does to the disk meanwhile.

Source of the format: the LUKS2 On-Disk Format Specification, version 1.1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 16 << 20
"""Bytes before the data: the room cryptsetup leaves for a header when nothing else is asked of it."""

_MAGICS = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")  # of the first and of the second copy
_BINARY = 4096  # bytes before the JSON
_SIZES = tuple(1 << shift for shift in range(14, 23))  # what a copy of the metadata may take: 16 KiB to 4 MiB
_LONGEST = 2 * _SIZES[-1] + (128 << 20)  # both copies, and the most the key slots may take
_FURTHEST = 1 << 40  # no data begin beyond
_CHECKSUM = slice(0x1C0, 0x200)
_ALGORITHM = slice(0x48, 0x68)
_BLOCK = 64 << 10


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

    def write_to(self, device: str) -> None:
        """Put the header on a device; whatever stood in its place, old key slots included, is gone.

        The first sector goes last: by it the device is known for what it is. Raises DeviceError.
        """
        with block.writing(device) as target:
            content = os.pread(self.descriptor, SIZE, 0)
            block.write(target, content[_BINARY:], _BINARY)
            os.fsync(target)
            block.write(target, content[:_BINARY], 0)

    def __enter__(self) -> Header:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a header says of how the device is encrypted; of all its valid copies together.

    segments: types of the data segments ("crypt"). ciphers: of the data; slot_ciphers: of the key slots. integrity:
    how the data are authenticated ("hmac(sha256)"), "" among them where some are not.
    """

    segments: frozenset[str]
    ciphers: frozenset[str]
    slot_ciphers: frozenset[str]
    integrity: frozenset[str]


def copy_from(device: str) -> tuple[Header, Facts]:
    """Copy a device's header into memory, and read the copy.

    Only what was understood is copied, so that cryptsetup can go by nothing else. Raises DeviceError when there is no
    header that could be used.
    """
    source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copies = list(_copies(os.pread(source, 2 * _SIZES[-1], 0)))
        if not copies:
            raise DeviceError(
                f"{device}: the LUKS2 header is damaged: no copy of it is whole",
                "put a backup of the header back, if there is one: cryptsetup luksHeaderRestore",
            )
        try:
            return _copy(source, copies)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            # not by chance: the checksum is right
            raise DeviceError(
                f"{device}: the LUKS2 header makes no sense ({type(error).__name__})",
                f"look at it: cryptsetup luksDump {device}",
            ) from None
    finally:
        os.close(source)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """One of the two copies of the metadata. offset: bytes from the device's beginning."""

    offset: int
    content: bytes

    def metadata(self) -> dict[str, Any]:
        """Return the JSON object. Raises ValueError when it is none."""
        text = self.content[_BINARY:].split(b"\0", 1)[0]
        try:
            found = json.loads(text)
        except RecursionError:
            raise ValueError from None
        if not isinstance(found, dict):
            raise TypeError
        return found


def _copies(head: bytes) -> Iterator[_Copy]:
    """Find the copies of the metadata whose checksum is right; cryptsetup uses the newer."""
    for offset in (0, *_SIZES):
        if head.startswith(_MAGICS, offset):
            size = int.from_bytes(head[offset + 8 : offset + 16], "big")
            copy = head[offset : offset + size]
            if size in _SIZES and len(copy) == size and _intact(copy):
                yield _Copy(offset, copy)


def _intact(copy: bytes) -> bool:
    """Tell whether a copy of the metadata has the checksum it says."""
    algorithm = copy[_ALGORITHM].split(b"\0", 1)[0].decode("ascii", "replace")
    blank = bytes(_CHECKSUM.stop - _CHECKSUM.start)
    try:
        digest = hashlib.new(algorithm, copy[: _CHECKSUM.start] + blank + copy[_CHECKSUM.stop :]).digest()
    except (TypeError, ValueError):  # no digest of that name, or one without a length
        return False
    return copy[_CHECKSUM].startswith(digest)


def _copy(source: int, copies: list[_Copy]) -> tuple[Header, Facts]:
    """Copy the metadata and the key slots; the rest of the room before the data is left blank."""
    metadata = [copy.metadata() for copy in copies]
    segments = [segment for one in metadata for segment in one["segments"].values()]
    areas = [slot["area"] for one in metadata for slot in one["keyslots"].values()]
    facts = Facts(
        segments=frozenset(str(segment["type"]) for segment in segments),
        ciphers=frozenset(str(segment.get("encryption")) for segment in segments),
        slot_ciphers=frozenset(str(area.get("encryption")) for area in areas),
        integrity=frozenset(str(segment.get("integrity", {}).get("type", "")) for segment in segments),
    )
    spans = {(int(area["offset"]), int(area["size"])) for area in areas}
    room = max(int(segment["offset"]) for segment in segments)
    if not 0 < room <= _FURTHEST or any(not 0 <= start < start + size <= _LONGEST for start, size in spans):
        raise ValueError
    header = Header(room)
    for copy in copies:
        block.write(header.descriptor, copy.content, copy.offset)
    for start, size in spans:
        block.write(header.descriptor, os.pread(source, size, start), start)
    return header, facts

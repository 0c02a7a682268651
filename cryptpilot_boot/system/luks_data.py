"""Where the data of a volume are, by a copy of its header that was checked."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.system.luks_header import Header

# LUKS2 On-Disk Format Specification, version 1.1: the size of a copy of the metadata stands behind its magic and its
# version, the JSON begins at 4096; the second copy comes right after the first.
_SIZE = slice(0x8, 0x10)
_BINARY = 4096
_MAGIC = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
_PLACES = (0, *(1 << shift for shift in range(14, 23)))


@dataclasses.dataclass(frozen=True)
class Data:
    """Where a header says that the data are.

    offset: bytes before them. sector_size: in bytes. integrity: whether they are authenticated.
    """

    offset: int
    sector_size: int
    integrity: bool

    def room(self, size: int) -> int:
        """Return the bytes of data on a device of `size` bytes that has no integrity: whole sectors."""
        return max(0, size - self.offset) // self.sector_size * self.sector_size


def find(header: Header) -> Data:
    """Return what a copy of a header says of the data. Raises DeviceError when it names several parts."""
    # one of its two copies may be older: both have to say the same
    segments = {
        (int(segment["offset"]), int(segment["sector_size"]), "integrity" in segment) for segment in _segments(header)
    }
    if len(segments) != 1:
        raise DeviceError(
            "the data have several parts, as while a reencryption goes on",
            "finish that first: cryptsetup reencrypt --resume-only",
        )
    return Data(*segments.pop())


def has_integrity(header: Header) -> bool:
    """Tell whether the data are authenticated."""
    return any("integrity" in segment for segment in _segments(header))


def excess(header: Header, size: int) -> int:
    """Return the bytes at the end of a device of `size` bytes that are no whole sector of the data.

    dm-integrity itself skips them.
    """
    if has_integrity(header):
        return 0
    segments = list(_segments(header))
    unit = max(int(segment["sector_size"]) for segment in segments)
    return max(0, size - min(int(segment["offset"]) for segment in segments)) % unit


def volume_key(header: Header) -> str:
    """Return what the volume key of a copy of a header is known by, or the keys while a reencryption goes on."""
    digests = [digest for one in _metadata(header) for digest in one["digests"].values() if digest["segments"]]
    return ", ".join(sorted({f"{digest['salt']} {digest['digest']}" for digest in digests}))


def _segments(header: Header) -> Iterator[dict[str, Any]]:
    for one in _metadata(header):
        yield from one["segments"].values()


def _metadata(header: Header) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each copy of the metadata that there is; it was checked when the header was copied."""
    for place in _PLACES:
        binary = os.pread(header.descriptor, _BINARY, place)
        if binary.startswith(_MAGIC):
            size = int.from_bytes(binary[_SIZE], "big")
            text = os.pread(header.descriptor, size - _BINARY, place + _BINARY).split(b"\0", 1)[0]
            yield json.loads(text)

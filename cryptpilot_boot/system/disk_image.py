"""Disk images in files: what format they have, and their way from one to another.

Uses: qemu-img (qemu-utils). It is always said which format an image has: what is recognized in a raw one is its
content's to say.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.mounts import MORTAL
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RAW = "raw"
_VHD = "vpc"
FORMATS: Mapping[str, str] = {RAW: "raw", "qcow2": "qcow2", _VHD: "VHD"}
"""Those that are known here: by the name that qemu-img has for them, what a person calls them."""
ARE_READ = f"formats that are read: {', '.join(FORMATS.values())}"
_MOST_OUTPUT = 4096  # bytes of what qemu-img says of its progress
# Of a VHD the size that qemu-img gives it by default is one of whole cylinders, and the table's copy not at its end.
_WRITING: Mapping[str, Sequence[str]] = {_VHD: ("-o", "subformat=dynamic,force_size=on")}
_SUFFIXES = {".qcow2": "qcow2", ".vhd": _VHD}
_MOST: Mapping[str, int] = {_VHD: 2040 << 30}  # bytes; qemu, block/vpc.c, VPC_MAX_SECTORS
# Source: Virtual Hard Disk Image Format Specification, 1.0, "Hard Disk Footer Format": 512 bytes that begin with the
# cookie; what kind of disk it is, as a big-endian number. The footer is at the end; all kinds but a fixed disk have a
# copy of it at the beginning.
_FOOTER = 512
_COOKIE = b"conectix"
_KIND_AT = 60
_FIXED, _DYNAMIC = 2, 3


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """What an image is. format: as qemu-img calls it; size: of the disk, in bytes; parts: what it needs of others."""

    format: str
    size: int
    parts: tuple[str, ...] = ()


def require_file(path: Path) -> None:
    """Raise CryptpilotError for what is not a regular file, or a link to one."""
    try:
        status = path.stat()
    except OSError as error:
        raise CryptpilotError(f"{path}: cannot be read: {error.strerror}", "name an image file") from None
    if not stat.S_ISREG(status.st_mode):
        raise CryptpilotError(
            f"{path} is not a regular file", "copy a disk to a file first: qemu-img convert -O qcow2 DEVICE FILE"
        )


def facts(path: Path) -> ImageFile:
    """Look at an image. Raises CryptpilotError when it cannot be read, or is in use by a virtual machine."""
    first, last = _ends(path)
    try:
        found = _facts(path)
        if found.format == RAW and last.startswith(_COOKIE):
            found = _facts(path, _VHD)  # one of a fixed size is not recognized: it begins as a raw image does
    except ProgramError as error:
        raise CryptpilotError(
            f"{path}: cannot be read: {error.what}", error.hint or "see: qemu-img info FILE"
        ) from None
    if found.format == _VHD and not _is_whole_vhd(first, last):
        return dataclasses.replace(found, parts=("a parent disk", *found.parts))
    return found


def _facts(path: Path, form: str = "") -> ImageFile:
    return parse(run(["qemu-img", "info", *(["-f", form] if form else []), "--output=json", _named(path)])[1])


def _ends(path: Path) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a file, as many as a VHD's footer has. Raises CryptpilotError."""
    try:
        with path.open("rb") as file:
            first = file.read(_FOOTER)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _FOOTER))
            return first, file.read(_FOOTER)
    except OSError as error:
        raise CryptpilotError(f"{path}: cannot be read: {error.strerror}") from None


def _is_whole_vhd(first: bytes, last: bytes) -> bool:
    """Tell whether a VHD has all of its disk. qemu-img reads the data of a parent as zeros, without an error."""
    footer, kind = (first, _DYNAMIC) if first.startswith(_COOKIE) else (last, _FIXED)
    return int.from_bytes(footer[_KIND_AT : _KIND_AT + 4], "big") == kind


def format_of(path: Path) -> str:
    """Return the format that an image is written in, by how its name ends."""
    return _SUFFIXES.get(path.suffix.lower(), RAW)


def require_size(form: str, size: int) -> None:
    """Raise CryptpilotError for a disk that is too large for a format. size: in bytes."""
    most = _MOST.get(form)
    if most and size > most:
        raise CryptpilotError(
            f"the disk has more than the {most >> 30} GiB that a {FORMATS[form]} takes",
            "name the new image *.qcow2, or write a raw one",
        )


def parse(text: str) -> ImageFile:
    """Read what `qemu-img info --output=json` says."""
    said: dict[str, Any] = json.loads(text)
    own: dict[str, Any] = said.get("format-specific", {}).get("data", {})
    needs = {
        "a backing file": said.get("backing-filename") or said.get("full-backing-filename"),
        "a data file of its own": own.get("data-file"),
        "a passphrase": said.get("encrypted") or own.get("encrypt"),
        "repair": own.get("corrupt"),
    }
    parts = tuple(what for what, there in needs.items() if there)
    return ImageFile(str(said["format"]), int(said["virtual-size"]), parts)


def convert(source: Path, source_format: str, target: Path, target_format: str) -> None:
    """Write an image in another format; target: a new file, in which what is zero takes no room."""
    formats = ["-f", source_format, "-O", target_format, *_WRITING.get(target_format, ())]
    _convert([*formats, _named(source), _named(target)])


def extract(source: Path, source_format: str, start: int, size: int, target: Path) -> None:
    """Write a part of an image to a new raw file. start, size: in bytes, of whole sectors of 512 bytes."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # JSON cannot have every name that a file can have
        reach = f"/proc/{os.getpid()}/fd/{descriptor}"
        image = {"driver": source_format, "file": {"driver": "file", "filename": reach}}
        part = json.dumps({"driver": RAW, "offset": start, "size": size, "file": image})
        _convert(["-O", RAW, f"json:{part}", _named(target)])
    finally:
        os.close(descriptor)


def _convert(arguments: Sequence[str]) -> None:
    run([*MORTAL, "qemu-img", "convert", "-p", *arguments], keep=_MOST_OUTPUT, meter=True)


def _named(path: Path) -> str:
    """Return a path as qemu-img takes it for nothing but a file: a name with a colon is a protocol otherwise."""
    return f"file:{path.absolute()}"

"""Disk images in files: what format they have, and their way from one to another.

Uses: qemu-img (qemu-utils). It is always said which format an image has: what is recognized in a raw one is its
content's to say.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.mounts import MORTAL
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RAW = "raw"
FORMATS = (RAW, "qcow2")
"""Those that are read here."""
_MOST_OUTPUT = 4096  # bytes of what qemu-img says of its progress
ARE_READ = f"formats that are read: {', '.join(FORMATS)}"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an image is. format: as qemu-img calls it; size: of the disk, in bytes; parts: what it needs of others."""

    format: str
    size: int
    parts: tuple[str, ...] = ()


def require_file(path: Path) -> None:
    """Raise CryptpilotError for what is no regular file."""
    if not path.is_file():
        raise CryptpilotError(f"{path}: {'is no regular file' if path.exists() else 'no such image'}")


def facts(path: Path) -> Facts:
    """Look at an image. Raises CryptpilotError when it cannot be read, or is in use by a virtual machine."""
    try:
        _, text = run(["qemu-img", "info", "--output=json", _named(path)])
    except ProgramError as error:
        raise CryptpilotError(
            f"{path}: cannot be read: {error.what}", error.hint or "see: qemu-img info FILE"
        ) from None
    return parse(text)


def parse(text: str) -> Facts:
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
    return Facts(str(said["format"]), int(said["virtual-size"]), parts)


def convert(source: Path, source_format: str, target: Path, target_format: str) -> None:
    """Write an image in another format; target: a new file, in which what is zero takes no room."""
    formats = ["-f", source_format, "-O", target_format]
    _convert([*formats, _named(source), _named(target)])


def extract(source: Path, source_format: str, start: int, size: int, target: Path) -> None:
    """Write a part of an image to a new raw file. start, size: in bytes, of whole sectors of 512 bytes."""
    image = {"driver": source_format, "file": {"driver": "file", "filename": str(source.absolute())}}
    part = json.dumps({"driver": RAW, "offset": start, "size": size, "file": image})
    _convert(["-O", RAW, f"json:{part}", _named(target)])


def _convert(arguments: Sequence[str]) -> None:
    run([*MORTAL, "qemu-img", "convert", "-p", *arguments], keep=_MOST_OUTPUT, meter=True)


def _named(path: Path) -> str:
    """Return a path as qemu-img takes it for nothing but a file: a name with a colon is a protocol otherwise."""
    return f"file:{path.absolute()}"

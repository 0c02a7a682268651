"""What is to be mounted, as fstab(5) has it. Pure."""

from __future__ import annotations

import dataclasses
import os
import re

_MAPPER = "/dev/mapper/"
_FIELDS = 4  # source, where, type, options; the two after them may be left out


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line. `line` is the line itself."""

    source: str
    where: str
    kind: str
    options: tuple[str, ...]
    line: str

    @property
    def mapper_name(self) -> str:
        """The source's name below /dev/mapper, "" for any other."""
        return mapper_name(self.source)


def parse(text: str) -> list[Entry]:
    """Return the lines that can be read; the others are for mount(8) to complain of."""
    entries = []
    for line in text.split("\n"):
        fields = [_decoded(field) for field in re.findall(r"[^ \t]+", line)]
        if len(fields) >= _FIELDS and not fields[0].startswith("#"):
            entries.append(Entry(fields[0], fields[1], fields[2], tuple(fields[3].split(",")), line))
    return entries


def _decoded(field: str) -> str:
    """Put the bytes in that stand there in octal, as a blank has to."""
    data = re.sub(rb"\\([0-3][0-7]{2})", lambda code: bytes([int(code[1], 8)]), os.fsencode(field))
    return os.fsdecode(data)


def mapper_name(device: str) -> str:
    """Return the name of a device below /dev/mapper, "" for any other."""
    prefix, name = device[: len(_MAPPER)], device[len(_MAPPER) :]
    return name if prefix == _MAPPER else ""

"""A parsed TOML file, and the line numbers of its keys."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Document:
    """A parsed TOML file with its text. whole: the text of the file, if `text` is a part of it."""

    path: Path
    text: str
    data: dict[str, Any]
    whole: str = ""


def line_of(text: str, section: str, name: str) -> str:
    """Return ":LINE" of a key or table, or "" if it is written in a way that this search does not find.

    tomli returns values without positions. The line is a help to the reader, and is not guaranteed.
    """
    here = ""
    full = f"{section}.{name}" if section else name
    for number, line in enumerate(text.split("\n"), 1):
        # the parts of the pattern match disjoint characters, so that a long line takes linear time
        header = re.match(r"\s*\[{1,2}([^\[\]#]+)\]", line)
        if header:
            here = header[1].strip()
            if here == full or here.startswith(full + "."):
                return f":{number}"
        elif here == section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return f":{number}"
    return ""

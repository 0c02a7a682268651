"""A parsed TOML file, and where in it something stands."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Document:
    """A parsed TOML file and what is needed to point into it. whole: the text of the file where `text` is a part."""

    path: Path
    text: str
    data: dict[str, Any]
    whole: str = ""


def line_of(text: str, section: str, name: str) -> str:
    """Return ":LINE" of a key or table, or "" where it is written in a way that a look at the lines misses.

    tomli gives values without positions, and a line is a help, not a promise.
    """
    here = ""
    full = f"{section}.{name}" if section else name
    for number, line in enumerate(text.split("\n"), 1):
        # no two parts of the pattern take the same character: a long line costs no more than its length
        header = re.match(r"\s*\[{1,2}([^\[\]#]+)\]", line)
        if header:
            here = header[1].strip()
            if here == full or here.startswith(full + "."):
                return f":{number}"
        elif here == section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return f":{number}"
    return ""

"""Command lines as the documentation prints them, to be typed by a test.

A block of them is marked in the page by the comment `<!-- tried: PLACE -->` on the line before it. In it a line that
begins with "# " or "$ " is typed, up to the end of its here-document or of its continued lines; what follows is what it
prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = re.compile(r"^<!-- tried: (\w+) -->\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPTS = ("# ", "$ ")
RECOVERY_KEY = re.compile(r"\b(?:[cbdefghijklnrtuv]{8}-){8}[cbdefghijklnrtuv]{8}\b")


@dataclass(frozen=True)
class Printed:
    """A command line, and the lines that stand below it as its output."""

    command: str
    output: tuple[str, ...] = ()


def commands(page: str, place: str) -> list[Printed]:
    """Return what a page prints to be typed at a place, in order."""
    return [one for where, block in BLOCK.findall(page) if where == place for one in _read(block)]


def _read(block: str) -> Iterator[Printed]:
    lines = block.splitlines()
    while lines:
        first = lines.pop(0)
        if not first.startswith(PROMPTS):
            raise ValueError(f"a block begins with what is no command line: {first!r}")
        typed = [first[2:]]
        end = re.search(r"<< '(\w+)'$", first)
        while lines and (typed[-1].endswith("\\") or (end and (typed[-1] != end[1] or len(typed) == 1))):
            typed.append(lines.pop(0))
        output = []
        while lines and not lines[0].startswith(PROMPTS):
            output.append(lines.pop(0))
        yield Printed("\n".join(typed), tuple(output))


def is_printed(line: str, said: str) -> bool:
    """Tell whether a line of a page is one of what was said, whatever the numbers and the recovery key."""
    return _plain(line) in [_plain(one) for one in said.splitlines()]


def _plain(line: str) -> str:
    return re.sub(r"\d+(\.\d+)*", "N", RECOVERY_KEY.sub("KEY", line))

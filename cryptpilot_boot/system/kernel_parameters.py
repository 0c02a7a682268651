"""How a kernel command line is split into words. Pure."""

from __future__ import annotations

import re

# A word may have its value in quotes, blanks included, as the kernel splits it (lib/cmdline.c).
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')

YES = ("1", "yes", "y", "true", "t", "on")
NO = ("0", "no", "n", "false", "f", "off")
"""The booleans of systemd; see systemd.syntax(7)."""


def words(command_line: str) -> list[str]:
    """Return the words of a kernel command line, without quotes."""
    return [word.replace('"', "") for word in _WORD.findall(command_line)]


def values(command_line: str) -> dict[str, str]:
    """Return the value of each word by its name; of several with one name the last one counts, as in dracut."""
    return dict(word.partition("=")[::2] for word in words(command_line))

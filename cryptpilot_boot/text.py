"""From the bytes of a file to its text, and characters in it that look like others. Pure."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# The longer ones first: that of UTF-32, little-endian, begins with that of UTF-16.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_FIRST = 64  # bytes by which UTF-16 without a mark is known


def decode(path: Path, data: bytes) -> str:
    """Return the text of a file, which is UTF-8, with or without a byte-order mark; lines end with a line feed.

    path: for the messages. Raises ConfigError for any other encoding, and names it if it is known.
    """
    other = _other_encoding(data)
    if other:
        raise ConfigError(
            f"{path}: is {other} text, and TOML is UTF-8",
            f"convert it: iconv -f {other} -t UTF-8, or have the editor save it as UTF-8",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not UTF-8 text (byte {error.start}, in line {data.count(10, 0, error.start) + 1})",
            "have the editor save it as UTF-8",
        ) from None
    # TOML ends a line with LF or CRLF; tomli.loads wants what universal newlines would give
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _other_encoding(data: bytes) -> str:
    """Return the name of the encoding that a file has in place of UTF-8, "" if there is no sign of one."""
    marked = next((name for mark, name in _OTHER_MARKS if data.startswith(mark)), "")
    if marked:
        return marked
    # what is written in it is ASCII for the most part, and each second byte zero then
    first = data[: min(_FIRST, len(data) // 2 * 2)]
    zeros = [first[place::2].count(0) for place in (0, 1)]
    enough = len(first) // 4
    if enough and max(zeros) > enough and not min(zeros):
        return "UTF-16BE" if zeros[0] else "UTF-16LE"
    return ""


def lookalike(text: str, line: int, column: int) -> str:
    """Return the character that a mistake at a place in a text may come from, "" if it is an ordinary one.

    line, column: as an editor counts them, from 1. A string that does not end where its line ends may have been meant
    to end with a quotation mark of another kind.
    """
    lines = text.split("\n")
    if not 0 < line <= len(lines):
        return ""
    here = lines[line - 1]
    if column <= len(here):
        char = here[column - 1]
        return "" if char.isascii() and (char.isprintable() or char == "\t") else char
    return next((char for char in reversed(here) if _is_quotation_mark(char)), "")


def lookalike_quotation_mark(text: str) -> tuple[int, str]:
    """Return the line and the character that a string without an end may be meant to end with; 0 and "" for none."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.lstrip().startswith("#"):
            for char in line:
                if _is_quotation_mark(char):
                    return number, char
    return 0, ""


def describe(char: str) -> str:
    """Name a character by its code point, and in words if it is easily mistaken for another."""
    name = _NAMES.get(char) or (f"a full-width {_meant(char)}" if char in _FULL_WIDTH else "")
    if not name:
        name = f'"{char}"' if char.isprintable() and char != " " else "which cannot be seen"
    return f"U+{ord(char):04X}, {name}"


def mend(char: str) -> str:
    """Return what to do about a misplaced character."""
    meant = _meant(char)
    if meant is None:
        return "write what is meant in its place, in ASCII"
    return f"write {_WORDS.get(meant, meant)} in its place" if meant else "remove it"


def unseen(text: str) -> str:
    """Return the first character of a text that does not show, or passes for a space; "" if there is no such one."""
    return next((char for char in text if not char.isprintable()), "")


def _is_quotation_mark(char: str) -> bool:
    return not char.isascii() and _meant(char) in ('"', "'")


def _meant(char: str) -> str | None:
    """Return the ASCII character that another one stands for, "" for nothing at all, None if unknown."""
    if char in _FULL_WIDTH:
        return chr(ord(char) - ord("\uff01") + ord("!"))
    return _MEANT.get(char)


_WORDS = {" ": "an ordinary space", "\n": "a line feed"}
# What Chinese and Japanese input methods give in place of "!" to "~".
_FULL_WIDTH = frozenset(map(chr, range(0xFF01, 0xFF5F)))
# Characters that editors, browsers, word processors and input methods put in place of ASCII ones: what each is called,
# and what is meant by it.
_TABLE = (
    ("\0", "NUL", ""),
    ("\t", "a tab", " "),
    ("\n", "a line feed", "\n"),
    ("\r", "a carriage return", "\n"),
    ("\x1b", "an escape character", ""),
    ("\x85", "a next-line character", "\n"),
    ("\xa0", "a no-break space", " "),
    ("\xab", "a left-pointing double quotation mark", '"'),
    ("\xad", "a soft hyphen", ""),
    ("\xbb", "a right-pointing double quotation mark", '"'),
    ("\u2002", "an en space", " "),
    ("\u2003", "an em space", " "),
    ("\u2007", "a figure space", " "),
    ("\u2009", "a thin space", " "),
    ("\u200a", "a hair space", " "),
    ("\u200b", "a zero-width space", ""),
    ("\u200c", "a zero-width non-joiner", ""),
    ("\u200d", "a zero-width joiner", ""),
    ("\u200e", "a left-to-right mark", ""),
    ("\u200f", "a right-to-left mark", ""),
    ("\u2010", "a hyphen that is not ASCII", "-"),
    ("\u2011", "a no-break hyphen", "-"),
    ("\u2013", "an en dash", "-"),
    ("\u2014", "an em dash", "-"),
    ("\u2018", "a left single quotation mark", "'"),
    ("\u2019", "a right single quotation mark", "'"),
    ("\u201a", "a low single quotation mark", "'"),
    ("\u201c", "a left double quotation mark", '"'),
    ("\u201d", "a right double quotation mark", '"'),
    ("\u201e", "a low double quotation mark", '"'),
    ("\u2028", "a line separator", "\n"),
    ("\u2029", "a paragraph separator", "\n"),
    ("\u202a", "a left-to-right embedding", ""),
    ("\u202c", "a pop directional formatting", ""),
    ("\u202d", "a left-to-right override", ""),
    ("\u202e", "a right-to-left override", ""),
    ("\u202f", "a narrow no-break space", " "),
    ("\u2060", "a word joiner", ""),
    ("\u2212", "a minus sign", "-"),
    ("\u3000", "an ideographic space", " "),
    ("\u3001", "an ideographic comma", ","),
    ("\u3002", "an ideographic full stop", "."),
    ("\u300c", "a left corner bracket", '"'),
    ("\u300d", "a right corner bracket", '"'),
    ("\u3010", "a left black lenticular bracket", "["),
    ("\u3011", "a right black lenticular bracket", "]"),
    ("\ufeff", "a byte-order mark", ""),
    ("\uff02", "a full-width quotation mark", '"'),
    ("\uff07", "a full-width apostrophe", "'"),
    ("\uff1d", "a full-width equals sign", "="),
    ("\ufffd", "a replacement character", ""),
)
_NAMES = {char: name for char, name, _ in _TABLE}
_MEANT = {char: meant for char, _, meant in _TABLE}

"""The man pages that are made of documentation: cryptpilot.toml(5) and cryptpilot.cmdline(7)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, NamedTuple

from buildlib.distribute import roff
from buildlib.distribute.roff import escaped, references, title

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*/`])\*(\w[^*`]*)\*(?!\w)")
_LINK = re.compile(r"\[((?:[^\[\]]|`[^`]*`)+)\]\([^)\s]*\)")
_ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")
_MEANING = ":   "
_TRANSLATION = re.compile(r"\[[^\x00-\x7f]+\]\(zh/[^)]*\)")


class Document(NamedTuple):
    """A page that is made of a document. about: its line in apropos(1)."""

    name: str
    section: int
    volume: str
    source: str
    about: str
    see_also: tuple[str, ...]


DOCUMENTS = (
    Document(
        "cryptpilot.toml",
        5,
        "File formats",
        "docs/configuration.md",
        "configuration of cryptpilot",
        ("cryptpilot(8)", "cryptpilot.cmdline(7)", "fstab(5)", "systemd.mount(5)"),
    ),
    Document(
        "cryptpilot.cmdline",
        7,
        "Kernel parameters",
        "docs/kernel-parameters.md",
        "kernel parameters of cryptpilot",
        ("cryptpilot(8)", "cryptpilot.toml(5)", "dracut.cmdline(7)", "bootparam(7)"),
    ),
)


def page(about: Document, markdown: str, version: str) -> str:
    """Return the page of a document."""
    lines = [title(about.name, about.section, version, about.volume), ".SH NAME"]
    lines += [f"{about.name} \\- {about.about}", ".SH DESCRIPTION", *_document(markdown)]
    lines += [".SH SEE ALSO", references(*about.see_also)]
    return roff.page(lines)


def _document(markdown: str) -> Iterator[str]:
    """Yield the lines of a document. This reads the Markdown that the two documents use and nothing else."""
    lines = [line for line in markdown.splitlines() if not _TRANSLATION.fullmatch(line)]
    while lines:
        line = lines.pop(0)
        if line.startswith("```"):
            yield from _verbatim(_taken(lines, lambda one: not one.startswith("```")))
            lines.pop(0)
        elif line.startswith("    "):
            yield from _verbatim(one[4:] for one in [line, *_taken(lines, lambda one: one.startswith("    "))])
        elif line.startswith("|"):
            yield from _table([line, *_taken(lines, lambda one: one.startswith("|"))])
        elif line.startswith("#"):
            marks, _, text = line.partition(" ")
            if len(marks) > 1:
                yield f'{".SH" if len(marks) == 2 else ".SS"} "{_inline(text)}"'
        elif lines and lines[0].startswith(_MEANING):
            meaning = " ".join(_taken(lines, lambda one: bool(one.strip())))
            yield from [".TP", _tag(line), _inline(" ".join(meaning.split()[1:]))]
        elif line.strip():
            rest = _taken(lines, lambda one: not _ends_a_paragraph(one))
            text = " ".join(part.strip() for part in [line, *rest])
            yield from [".IP \\(bu 2", _inline(_ITEM.sub("", text, 1))] if _ITEM.match(line) else [".PP", _inline(text)]


def _taken(lines: list[str], belongs: Callable[[str], bool]) -> list[str]:
    """Remove the first lines, as far as they belong to what has begun, and return them."""
    end = next((number for number, one in enumerate(lines) if not belongs(one)), len(lines))
    taken = lines[:end]
    del lines[:end]
    return taken


def _verbatim(lines: Iterable[str]) -> list[str]:
    return [".PP", ".nf", ".RS", *map(escaped, lines), ".RE", ".fi"]


def _ends_a_paragraph(line: str) -> bool:
    return not line.strip() or line.startswith(("|", "#", "```")) or bool(_ITEM.match(line))


def _table(lines: Sequence[str]) -> Iterator[str]:
    header, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]
    for row in rows:
        yield ".TP"
        if header[:2] == ["key", "default"]:
            yield (
                f"{_inline(row[0])} (default: {_inline(row[1])})"
                if row[1] != "required"
                else f"{_inline(row[0])} (required)"
            )
            yield _inline(row[2])
        else:
            yield _inline(row[0])
            yield "; ".join(_inline(cell) for cell in row[1:])


def _tag(text: str) -> str:
    """Return a line with what is typed in bold, and what it stands for in italics."""
    parts = [part for part in re.split(r"(\*\*[^*]+\*\*|_[A-Z]+_)", text) if part]
    fonts = {"*": "\\fB{}\\fR", "_": "\\fI{}\\fR"}
    return "".join(fonts.get(part[0], "{}").format(escaped(part.strip("*_"))) for part in parts)


def _inline(text: str) -> str:
    """Return a line with code in bold and links as their text."""
    for pattern in (_LINK, _BOLD, _EMPHASIS):
        text = pattern.sub(r"\1", text)
    parts = _CODE.split(text)
    return "".join(f"\\fB{escaped(part)}\\fR" if number % 2 else escaped(part) for number, part in enumerate(parts))

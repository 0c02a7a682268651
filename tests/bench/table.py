"""Tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
GIB = 1 << 30


def title(text: str) -> None:
    """Print the head of a table."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def row(name: str, value: str) -> None:
    """Print a line of a table."""
    print(f"{name:<50} {value}", flush=True)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of several columns: the first to the left, figures to the right."""
    widths = [max(len(line[n]) for line in (head, *rows)) for n in range(len(head))]
    for line in (head, *rows):
        cells = [text.rjust(width) for text, width in zip(line, widths)]
        print("  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip(), flush=True)

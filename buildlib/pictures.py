"""Pictures of the documentation: drawn as SVG from a table of boxes and arrows beside each.

`make pictures` writes them; tests/unit/test_pictures.py compares. A source is docs/dev/pictures/NAME.toml:

    title = "..."            what the picture shows, for readers that do not see it
    cell = [200, 90]         width and height of a grid cell, pixels
    [[box]]
    id = "cli"
    at = [0, 0]              column and row of the grid
    columns = 1              how many columns it is wide
    kind = "code"            a key of KINDS
    text = ["cli", "..."]    lines; the first is the name
    [[arrow]]
    from = "cli"
    to = "keys"
    text = "..."             optional
"""

from __future__ import annotations

import dataclasses
import sys
from html import escape
from typing import TYPE_CHECKING, Any

import tomli

from buildlib.base import ROOT, BuildError

if TYPE_CHECKING:
    from pathlib import Path

PLACE = ROOT / "docs/dev/pictures"

# Fill and line of a box, by what it stands for.
KINDS = {
    "code": ("#e8f0fe", "#3b5998"),  # Python of the package
    "shell": ("#fdf3e1", "#a06a12"),  # a shell script or a unit
    "file": ("#f1f1ee", "#77776f"),  # a file by which two of the others talk
    "outside": ("#ffffff", "#999999"),  # what belongs to others: the kernel, KMS, dracut, systemd
}
_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    ' font-family="sans-serif" font-size="12">'
)
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#333"/></marker></defs>'
)
_MARGIN = 20  # pixels, around the picture
_GAP_X, _GAP_Y = 46, 30  # pixels, between the boxes of two cells
_LINE = 16  # pixels from one line of text to the next
_CHARACTER = 6.7  # pixels, the widest average of the fonts that browsers take for sans-serif at 12 pixels


@dataclasses.dataclass(frozen=True)
class Box:
    """A box with its place, in pixels."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    text: tuple[str, ...]

    @property
    def right(self) -> int:
        """The x of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The y of the lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> tuple[int, int]:
        """The point in the middle."""
        return self.x + self.width // 2, self.y + self.height // 2


def drawn(source: str) -> str:
    """Return the SVG of a picture's source. Raises BuildError for a box or an arrow that cannot be drawn."""
    picture = tomli.loads(source)
    boxes = {row["id"]: _box(row, picture["cell"]) for row in picture["box"]}
    width = max(box.right for box in boxes.values()) + _MARGIN
    height = max(box.bottom for box in boxes.values()) + _MARGIN
    parts = [
        _HEAD.format(width=width, height=height),
        f"<title>{escape(picture['title'])}</title>",
        _TIP,
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *(_arrow(row, boxes) for row in picture.get("arrow", [])),
        *(_shape(box) for box in boxes.values()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(row: dict[str, Any], cell: list[int]) -> Box:
    column, line = row["at"]
    width = cell[0] * row.get("columns", 1) - _GAP_X
    box = Box(
        _MARGIN + column * cell[0], _MARGIN + line * cell[1], width, cell[1] - _GAP_Y, row["kind"], (*row["text"],)
    )
    if len(box.text) * _LINE > box.height or max(map(len, box.text)) * _CHARACTER > box.width:
        raise BuildError(f'box "{row["id"]}": its text needs more room', "shorten it, or enlarge the picture's cell")
    if box.kind not in KINDS:
        raise BuildError(f'box "{row["id"]}": kind "{box.kind}" is unknown', f"known: {', '.join(KINDS)}")
    return box


def _shape(box: Box) -> str:
    fill, line = KINDS[box.kind]
    x, y = box.middle
    first = y - (len(box.text) - 1) * _LINE // 2 + 4
    place = f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'
    parts = [f'<rect {place} rx="5" fill="{fill}" stroke="{line}"/>']
    for number, text in enumerate(box.text):
        weight = "normal" if number else "bold"
        place = f'x="{x}" y="{first + number * _LINE}"'
        parts.append(f'<text {place} text-anchor="middle" font-weight="{weight}">{escape(text)}</text>')
    return "".join(parts)


def _arrow(row: dict[str, Any], boxes: dict[str, Box]) -> str:
    for end in ("from", "to"):
        if row[end] not in boxes:
            raise BuildError(f'an arrow {end} "{row[end]}": there is no such box')
    points = _way(boxes[row["from"]], boxes[row["to"]])
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    line = f'<path d="{path}" fill="none" stroke="#333" marker-end="url(#tip)"/>'
    if not row.get("text"):
        return line
    (x1, y1), (x2, y2) = points[0], points[1]
    return line + (
        f'<text x="{(x1 + x2) // 2 + (6 if x1 == x2 else 0)}" y="{(y1 + y2) // 2 + (4 if x1 == x2 else -4)}"'
        f' text-anchor="{"start" if x1 == x2 else "middle"}" fill="#333" font-size="11">{escape(row["text"])}</text>'
    )


def _way(one: Box, other: Box) -> list[tuple[int, int]]:
    """Return the points of a line from the edge of one box to that of another: straight where they overlap."""
    left, right = max(one.x, other.x), min(one.right, other.right)
    if left < right:
        x = (left + right) // 2
        return [(x, one.bottom), (x, other.y)] if one.bottom <= other.y else [(x, one.y), (x, other.bottom)]
    side = one.right if one.right <= other.x else one.x
    top, bottom = max(one.y, other.y), min(one.bottom, other.bottom)
    if top < bottom:
        y = (top + bottom) // 2
        return [(side, y), (other.x if side == one.right else other.right, y)]
    x, y = other.middle[0], one.middle[1]
    return [(side, y), (x, y), (x, other.y if y < other.y else other.bottom)]


def sources() -> list[Path]:
    """Return the sources of all pictures."""
    return sorted(PLACE.glob("*.toml"))


def main() -> int:
    """Write the SVG of every source beside it."""
    for source in sources():
        try:
            source.with_suffix(".svg").write_text(drawn(source.read_text()))
        except BuildError as error:
            sys.stderr.write(f"{source.name}: {error.what}\n  {error.hint}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

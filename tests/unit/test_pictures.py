"""Pictures of the documentation are what their tables say, and show the packages in the order in which they import."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from buildlib.base import ROOT, BuildError
from buildlib.pictures import PLACE, drawn, sources
from tests.unit.test_rooms import ROOMS

BOX = """
title = "one"
cell = [200, 90]
[[box]]
id = "a"
at = [0, 0]
kind = "code"
text = ["a"]
"""


def test_there_are_pictures_and_a_page_shows_each() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs/dev").glob("*.md")]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert len(sources()) >= 3
    assert {path.name for path in PLACE.glob("*.svg")} == {f"{path.stem}.svg" for path in sources()}
    assert [path.stem for path in sources() if f"pictures/{path.stem}.svg)" not in shown] == []


@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_a_picture_is_what_its_source_says(source: Path) -> None:
    assert source.with_suffix(".svg").read_text() == drawn(source.read_text()), "run: make pictures"


def test_the_packages_are_drawn_from_top_to_bottom_as_they_may_import() -> None:
    boxes = {row["id"]: row for row in tomli.loads((PLACE / "rooms.toml").read_text())["box"]}
    assert set(ROOMS) <= set(boxes)
    lines = [boxes[room]["at"][1] for room in ROOMS]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('text = ["a"]', f'text = ["{"a" * 40}"]'), "its text needs more room"),
        (('text = ["a"]', 'text = ["a", "b", "c", "d"]'), "its text needs more room"),
        (('kind = "code"', 'kind = "cloud"'), 'kind "cloud" is unknown'),
        (('text = ["a"]', 'text = ["a"]\n[[arrow]]\nfrom = "a"\nto = "b"'), 'to "b": there is no such box'),
    ],
    ids=["wide", "high", "kind", "arrow"],
)
def test_what_cannot_be_drawn_is_an_error(change: tuple[str, str], said: str) -> None:
    assert "<title>one</title>" in drawn(BOX)
    with pytest.raises(BuildError, match=said):
        drawn(BOX.replace(*change))


def test_lines_of_text_are_escaped() -> None:
    assert ">a &lt; b &amp; c<" in drawn(BOX.replace('"a"]', '"a < b & c"]'))

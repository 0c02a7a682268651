"""Decisions can be found: each page names code and tests that are there, and both lists name each page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from buildlib.base import ROOT

PLACE = ROOT / "docs/dev/decisions"
RECORDS = sorted(PLACE.glob("[0-9]*.md"))
ROW = re.compile(r"^\| (\d+) \| \[(.+)\]\((?:dev/decisions/)?(\d+-[a-z0-9-]+\.md)\) \|$", re.MULTILINE)


def test_they_are_numbered_without_a_gap() -> None:
    assert len(RECORDS) > 30
    assert [int(path.name.partition("-")[0]) for path in RECORDS] == [*range(1, len(RECORDS) + 1)]


@pytest.mark.parametrize("page", [PLACE / "README.md", ROOT / "docs/design.md"], ids=lambda path: path.name)
def test_a_list_has_each_by_its_title(page: Path) -> None:
    titles = [path.read_text(encoding="utf-8").partition("\n")[0] for path in RECORDS]
    rows = ROW.findall(page.read_text(encoding="utf-8"))
    assert [(f"# {number}. {title}", name) for number, title, name in rows] == [
        (title, path.name) for title, path in zip(titles, RECORDS)
    ]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_page_says_why_and_names_code_and_tests(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "\n**Why.** " in text
    parts = {
        name: re.findall(r"\]\(\.\./\.\./\.\./(\S+)\)", line)
        for name, line in re.findall(r"^\*\*(Code|Tests):\*\* (.+)$", text, re.MULTILINE)
    }
    assert set(parts) == {"Code", "Tests"}
    assert all(parts.values())
    assert [name for names in parts.values() for name in names if not (ROOT / name).is_file()] == []

"""docs/security.md claims what a test shows: each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"\b((?:unit|volumes|boot|packages)/test_\w+\.py)(?:::(\w+))?", PAGE)))
ROWS = [line for line in PAGE.partition("## Attacks")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")][
    1:
]


def test_every_attack_has_a_test() -> None:
    assert len(ROWS) > 20
    assert [row for row in ROWS if not re.search(r"/test_\w+\.py|tests/fuzz", row)] == []


def test_a_test_that_is_named_is_there() -> None:
    assert len(NAMED) > 50
    tests = CHECKOUT / "tests"
    assert {one for one in NAMED if f"def {one[1] or 'test_'}" not in (tests / one[0]).read_text()} == set()

"""The table of the matrix that `make matrix` prints: what was run, how it ended, of which commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

MARK = "matrix"
PAIRWISE = "pairwise"
"""What those of them have that `make test` runs too, and prints the same table of."""


@dataclass(frozen=True)
class Outcome:
    """How a test ended, which has up to three parts. seconds: of all of them."""

    test: str
    result: str
    seconds: float


def outcomes(reports: Iterable[pytest.TestReport]) -> list[Outcome]:
    """Return how the tests with the mark ended, in the order of their names."""
    found: dict[str, Outcome] = {}
    for report in reports:
        if MARK not in report.keywords:
            continue
        before = found.get(report.nodeid, Outcome(report.nodeid, "passed", 0))
        result = before.result if report.passed else report.outcome
        found[report.nodeid] = Outcome(report.nodeid, result, before.seconds + report.duration)
    return sorted(found.values(), key=lambda one: one.test)


def table(rows: Iterable[Outcome], commit: str) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        f"Rows of the matrix, on commit {commit}:",
        "",
        "| test | result | seconds |",
        "|---|---|---:|",
        *(f"| `{row.test.removeprefix('tests/')}` | {row.result} | {row.seconds:.0f} |" for row in rows),
    ]


def commit(checkout: Path) -> str:
    """Return the commit of a checkout, with "-dirty" if files of it were changed since. Host program: ``git``."""
    if not (checkout / ".git").exists():
        return "unknown"
    # the checkout may be the user's, and the tests are root's
    describe = ["describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    return run(["git", "-c", f"safe.directory={checkout}", "-C", checkout, *describe]).strip()

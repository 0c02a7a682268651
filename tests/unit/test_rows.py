"""The rows of `make matrix`, and the table that it prints."""

from __future__ import annotations

import itertools

import pytest

from buildlib.base import ROOT
from tests.boot import test_convert, test_convert_uefi
from tests.conftest import LONGEST_FIRST
from tests.lab import rows


def report(test: str, when: str, outcome: str, seconds: float, mark: str = rows.MARK) -> pytest.TestReport:
    return pytest.TestReport(test, (test, 1, test), {mark: 1}, outcome, None, when, duration=seconds)  # type: ignore[arg-type]


def test_a_row_is_a_test_with_the_mark_and_all_its_parts() -> None:
    found = rows.outcomes(
        [
            report("tests/boot/b.py::two", "setup", "failed", 2),
            report("tests/boot/a.py::one", "setup", "passed", 1.25),
            report("tests/boot/a.py::one", "call", "passed", 30.5),
            report("tests/boot/a.py::none", "call", "passed", 3, "parametrize"),
            report("tests/boot/c.py::three", "call", "passed", 4),
            report("tests/boot/c.py::three", "teardown", "failed", 5),
        ]
    )
    assert rows.table(found, "abc")[2:] == [
        "| test | result | seconds |",
        "|---|---|---:|",
        "| `boot/a.py::one` | passed | 32 |",
        "| `boot/b.py::two` | failed | 2 |",
        "| `boot/c.py::three` | failed | 9 |",
    ]


def test_the_two_targets_leave_no_test_out_and_share_the_pairwise_choice() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert [line.partition("-m ")[2] for line in lines if line.startswith("\t@$(PYTEST) $(MACHINES)")] == [
        f'"not {rows.MARK} or {rows.PAIRWISE}" $(PYTEST_ARGS)',
        f"{rows.MARK} $(PYTEST_ARGS)",
    ]


def test_the_files_that_are_run_first_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).is_file()] == []


def test_images_of_every_kind_are_converted_and_two_that_differ_in_all_by_make_test() -> None:
    every = (*test_convert.ROWS, *test_convert_uefi.ROWS)
    kinds = {row: (row.uefi, row.stock.kind, bool(row.stock.boot)) for row in every}
    assert set(kinds.values()) == set(itertools.product((False, True), ("ext4", "xfs"), (False, True)))
    assert any(row.integrity for row in every)
    assert any(row.stock.unified for row in every)
    first, second = (kinds[row] for row in every if row.pairwise)
    assert all(one != other for one, other in zip(first, second))

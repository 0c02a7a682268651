"""Mappings that were begun and never had a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.system import mapper

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

# what dmsetup 1.02.185 says of two that have a table, and two that have none
SAID = "L--w/root\n---w/root-converting\nL--r/root-source\n---w/other\n"


def test_those_without_a_table_are_removed_of_the_names_that_are_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing else that is called so, and nothing else that has no table."""
    called: list[list[str]] = []

    def run(argv: list[str], **_: object) -> tuple[int, str]:
        called.append(argv)
        return 0, SAID

    monkeypatch.setattr(mapper, "run", run)
    monkeypatch.setattr(mapper, "CONTROL", tmp_path / "control")
    mapper.remove_empty(["root-converting", "root-source"])
    assert called == []  # a machine without device-mapper has none
    (tmp_path / "control").touch()
    mapper.remove_empty(["root-converting", "root-source"])
    assert [argv[1:] for argv in called[1:]] == [["remove", "root-converting"]]

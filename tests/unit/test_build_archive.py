"""The archives of a bundle."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from buildlib import archive

if TYPE_CHECKING:
    from pathlib import Path


def make(path: Path, *names: str, year: int = 1980) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), name)
    return path


def test_neither_order_nor_time_is_left_in_a_sorted_zip_file(tmp_path: Path) -> None:
    one = make(tmp_path / "one.zip", "b.pyc", "a/__init__.pyc", "a/c.pyc")
    other = make(tmp_path / "other.zip", "a/c.pyc", "b.pyc", "a/__init__.pyc", year=2001)
    archive.sort(one)
    archive.sort(other)
    assert one.read_bytes() == other.read_bytes()
    assert zipfile.ZipFile(one).read("a/c.pyc") == b"a/c.pyc"


def test_modules_go_by_the_names_they_are_imported_by(tmp_path: Path) -> None:
    path = make(tmp_path / "base_library.zip", "a/__init__.pyc", "a/c.pyc", "b.pyc")
    assert archive.is_archive(path)
    assert list(archive.members(path)) == ["a", "a.c", "b"]

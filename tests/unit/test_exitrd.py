"""What the machine is turned off with: kept whole or not at all, and dracut unpacks nothing in either case."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import exitrd

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "/usr/lib/systemd/systemd-shutdown"
LIBRARY = "/lib/x86_64-linux-gnu/libc.so.6"


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    """The root of an initrd, with the list that the dracut module leaves."""
    root = tmp_path / "initrd"
    for path in (PROGRAM, LIBRARY):
        (root / path[1:]).parent.mkdir(parents=True)
        (root / path[1:]).write_text(path)
    (root / "files").write_text(f"{PROGRAM}\n{LIBRARY}\n")
    return root


def kept(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_dracut_is_kept_from_unpacking_an_image(tmp_path: Path) -> None:
    """dracut-shutdown.service has ConditionPathExists=!/run/initramfs/bin/sh, and what it runs looks too."""
    exitrd.claim(tmp_path / "run")
    assert (tmp_path / "run/bin/sh").exists()
    exitrd.claim(tmp_path / "run")


def test_the_program_and_its_libraries_are_kept(tmp_path: Path, initrd: Path) -> None:
    place = tmp_path / "run"
    exitrd.keep(place, initrd / "files", initrd)
    assert kept(place) == {"shutdown", LIBRARY[1:], "etc/initrd-release"}
    assert (place / "shutdown").read_text() == PROGRAM
    assert os.access(place / "shutdown", os.X_OK)
    assert os.access(place / LIBRARY[1:], os.X_OK)


def test_where_no_systemd_would_run_it_nothing_is_kept(tmp_path: Path) -> None:
    exitrd.keep(tmp_path / "run", tmp_path / "no-list", tmp_path)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_kept_whole_is_not_kept(tmp_path: Path, initrd: Path) -> None:
    """systemd would run it, and not be able to go back."""
    place = tmp_path / "run"
    (initrd / "files").write_text(f"{PROGRAM}\n{LIBRARY}\n/lib/gone.so\n")
    with pytest.raises(CryptpilotError, match=r"gone\.so: No such file or directory"):
        exitrd.keep(place, initrd / "files", initrd)
    assert kept(place) == set()


def test_others_are_left_room(tmp_path: Path, initrd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(PROGRAM + LIBRARY)
    state = SimpleNamespace(f_bavail=2 * size - 1, f_frsize=1, f_flag=0)
    monkeypatch.setattr("os.statvfs", lambda _: state)
    with pytest.raises(CryptpilotError, match=f"it takes {size} bytes, and {2 * size - 1} are free there"):
        exitrd.keep(tmp_path / "run", initrd / "files", initrd)
    assert kept(tmp_path / "run") == set()
    state.f_bavail += 1
    exitrd.keep(tmp_path / "run", initrd / "files", initrd)
    assert "shutdown" in kept(tmp_path / "run")


def test_what_cannot_be_written_is_said(tmp_path: Path, initrd: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CryptpilotError, match="cannot be made: Not a directory"):
        exitrd.claim(tmp_path / "run")
    with pytest.raises(CryptpilotError, match=r"cannot be kept in .*/run: .*Not a directory"):
        exitrd.keep(tmp_path / "run", initrd / "files", initrd)


def test_where_nothing_in_run_may_be_run_this_may(
    tmp_path: Path, initrd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dracut's own scripts, without systemd, mount /run with noexec: systemd would pass over the program there.

    It is done even after what was at work was ended at the deadline.
    """
    ran: list[list[str]] = []
    place = tmp_path / "run"
    state = SimpleNamespace(f_bavail=1 << 30, f_frsize=1, f_flag=os.ST_NOEXEC)
    monkeypatch.setattr("os.statvfs", lambda _: state)
    monkeypatch.setattr(exitrd, "run", lambda argv, *, finish: ran.append(argv) if finish else None)
    exitrd.keep(place, initrd / "files", initrd)
    assert ran == [
        ["mount", "--rbind", str(place), str(place)],
        ["mount", "-o", "remount,bind,exec,nosuid,nodev", str(place)],
    ]

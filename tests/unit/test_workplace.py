"""Directories to work in: what is wrong with a place, and what helps."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import workplace

MIB = 1 << 20


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Mount flags and room of places, by path; others have neither flags nor an end of room."""
    places: dict[str, tuple[int, int]] = {}

    def statvfs(path: str | Path) -> SimpleNamespace:
        flags, room = places.get(str(path), (0, 1 << 50))
        return SimpleNamespace(f_flag=flags, f_bfree=room, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return places


CASES = {
    "noexec": (os.ST_NOEXEC, MIB, "is mounted noexec", "mount -o remount,exec /"),
    "read-only": (os.ST_RDONLY, MIB, "is mounted read-only", "mount -o remount,rw /"),
    "no room": (0, 3 * MIB, "has 3 MiB left, and 8 MiB are needed", "make room: 5 MiB more on /"),
    "full": (0, 0, "has 0 bytes left, and 8 MiB are needed", "make room: 8 MiB more on /"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_one_cause_is_named_with_a_step_that_helps(
    tmp_path: Path, mounted: dict[str, tuple[int, int]], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    flags, room, cause, step = CASES[case]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(workplace, "mount_point", lambda _: Path("/"))
    mounted[str(tmp_path)] = (flags, room)
    with pytest.raises(CryptpilotError) as caught, workplace.private_directory(8 * MIB, in_memory=False):
        pytest.fail("that is no place to work in")
    assert caught.value.what == f"no place to work in: {tmp_path} {cause}" + (
        ", so nothing can be run there" if case == "noexec" else ""
    )
    assert step in caught.value.hint
    assert "TMPDIR=DIRECTORY" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_missing_is_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    with pytest.raises(CryptpilotError, match="absent does not exist") as caught:
        workplace.private_directory(0, in_memory=False).__enter__()
    assert f"mkdir --mode=1777 {tmp_path}/absent" in caught.value.hint
    (tmp_path / "absent").write_text("")
    with pytest.raises(CryptpilotError, match="absent is not a directory"):
        workplace.private_directory(0, in_memory=False).__enter__()


def test_each_place_has_its_own_cause(tmp_path: Path, mounted: dict[str, tuple[int, int]],
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mounted["/run"] = (os.ST_NOEXEC, MIB)
    mounted[str(tmp_path)] = (0, MIB)
    with pytest.raises(CryptpilotError) as caught:
        workplace.private_directory(2 * MIB, in_memory=True).__enter__()
    assert caught.value.what == (
        "no place to work in: /run is mounted noexec, so nothing can be run there;"
        f" {tmp_path} has 1 MiB left, and 2 MiB are needed"
    )
    mounted["/run"] = (0, MIB)
    mounted[str(tmp_path)] = (0, 2 * MIB)
    with workplace.private_directory(2 * MIB, in_memory=True) as directory:
        assert directory.parent == tmp_path


def test_where_something_ran_full_that_is_what_is_said(tmp_path: Path, mounted: dict[str, tuple[int, int]]) -> None:
    workplace.require_room_left("it was made", tmp_path)
    mounted[str(tmp_path)] = (0, 4096)
    with pytest.raises(CryptpilotError, match="became full while it was made"):
        workplace.require_room_left("it was made", tmp_path)


def test_a_mount_point_is_found_above_a_path(tmp_path: Path) -> None:
    assert workplace.mount_point(Path("/proc/self/task")) == Path("/proc")
    assert os.path.ismount(workplace.mount_point(tmp_path / "not/there"))


def test_a_bind_mount_is_a_mount_point_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    point = str(tmp_path / "a b").replace(" ", r"\040")
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 8:1 /x {point} rw,noexec - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(workplace, "MOUNTS", mounts)
    assert workplace.mount_point(tmp_path / "a b/c") == tmp_path / "a b"
    assert workplace.mount_point(tmp_path) == Path("/")


@pytest.mark.root
def test_a_private_directory_is_private_and_gone_afterwards() -> None:
    seen = []

    def work() -> None:
        with workplace.private_directory(1, in_memory=True) as directory:
            (directory / "below").mkdir()
            seen.append((directory, directory.stat().st_mode & 0o777))
            raise CryptpilotError("went wrong")

    with pytest.raises(CryptpilotError):
        work()
    [(directory, mode)] = seen
    assert mode == 0o700
    assert not directory.exists()

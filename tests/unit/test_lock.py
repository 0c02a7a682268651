"""A volume is worked on by one process at a time."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import private
from cryptpilot_boot.system.lock import held

if TYPE_CHECKING:
    from pathlib import Path


def require_held_alone(*where: Path) -> None:
    """Require that volume a, which is held, is refused, and another is not. where: as `held` takes it."""
    with (
        pytest.raises(CryptpilotError, match="another cryptpilot process is working on volume a"),
        held("a", *where),
    ):
        pytest.fail("it was held twice")
    with held("b", *where):
        pass


def test_a_volume_that_is_held_is_refused_and_another_is_not(tmp_path: Path) -> None:
    with held("a", tmp_path):
        require_held_alone(tmp_path)
    with held("a", tmp_path):
        pass


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    child = os.fork()
    if child == 0:
        with held("a", tmp_path):
            os.write(ours, b"x")
            signal.pause()
    os.read(theirs, 1)
    with pytest.raises(CryptpilotError), held("a", tmp_path):
        pytest.fail("it was held twice")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with held("a", tmp_path):
        pass


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CryptpilotError, match="cannot be locked: "), held("a", tmp_path / "file"):
        pytest.fail("it was held")


@pytest.mark.parametrize("room", ["none", "since then"])
def test_a_lock_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str) -> None:
    """It is another's as well if there is room again when that comes."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    control = tmp_path / "control"
    control.touch()
    with monkeypatch.context() as full:
        full.setattr(private, "directory", fail)
        locks = tmp_path / "locks"
        with held("a", locks, control):
            if room == "since then":
                full.undo()
            require_held_alone(locks, control)
        with held("a", locks, control):
            pass
        assert (locks / "a").exists() is (room == "since then")


def test_without_room_and_without_a_device_mapper_there_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(private, "directory", fail)
    with (
        pytest.raises(CryptpilotError, match="cannot be locked: No space left on device"),
        held("a", tmp_path, tmp_path / "absent"),
    ):
        pytest.fail("it was held")

"""A volume is worked on by one process at a time."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.lock import held

if TYPE_CHECKING:
    from pathlib import Path


def test_a_volume_that_is_held_is_refused_and_another_is_not(tmp_path: Path) -> None:
    with held("a", tmp_path):
        with (
            pytest.raises(CryptpilotError, match="another cryptpilot process is at work on volume a"),
            held("a", tmp_path),
        ):
            pytest.fail("it was held twice")
        with held("b", tmp_path):
            pass
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

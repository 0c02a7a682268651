"""What the system stage has to say of volumes that failed, and that it is said once, at its time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.boot import failures

UNIT = "cryptpilot@my\\x2ddata.service"


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    """Where the generator has left what cryptpilot.service wants: the unit of a volume."""
    directory = tmp_path / "cryptpilot.service.wants"
    directory.mkdir()
    (directory / UNIT).symlink_to("/usr/lib/systemd/system/cryptpilot@.service")
    return directory


def test_what_failed_is_kept_for_the_unit_that_repeats_it(tmp_path: Path, wanted: Path) -> None:
    failures.record("my-data", ["a", "b \udcff"], tmp_path / "failed", wanted)
    assert (tmp_path / "failed/my-data").read_text() == "a\nb \\udcff\n"
    failures.record("my-data", [], tmp_path / "failed", wanted)
    assert not (tmp_path / "failed/my-data").exists()


def test_nothing_is_kept_for_a_unit_that_systemd_does_not_know_yet(tmp_path: Path, wanted: Path) -> None:
    """It would repeat when it is first started what was mended meanwhile."""
    failures.record("new", ["is not initialized"], tmp_path / "failed", wanted)
    assert not (tmp_path / "failed/new").exists()


def test_what_is_kept_is_said_once_and_not_after_a_stop(tmp_path: Path) -> None:
    script = tmp_path / "cryptpilot-volume"
    text = (ROOT / "systemd/cryptpilot-volume").read_text()
    assert text.count(f"{failures.DIRECTORY}/") == text.count("exec /usr/bin/cryptpilot boot-service") == 1
    text = text.replace(f"{failures.DIRECTORY}/", f"{tmp_path}/failed-").replace("/usr/bin/cryptpilot", "echo opens")
    script.write_text(text)
    kept = tmp_path / "failed-no-such-volume"

    def start(*how: str) -> tuple[int, str]:
        found = subprocess.run(
            ["sh", script, "no-such-volume", *how], stdout=subprocess.PIPE, text=True, timeout=30, check=False
        )
        return found.returncode, found.stdout

    kept.write_text("why\n")
    assert start() == (1, "why\n")
    assert start() == (0, "opens boot-service --stage system no-such-volume\n")
    kept.write_text("why\n")
    assert start("close") == (0, "")
    assert start() == (0, "opens boot-service --stage system no-such-volume\n")

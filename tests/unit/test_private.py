"""Modes do not depend on the umask, and what somebody has planted is not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cryptpilot_boot import paths
from cryptpilot_boot.boot import failures
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.commands import generator
from cryptpilot_boot.config import load
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.log import Event
from cryptpilot_boot.report import eventlog
from cryptpilot_boot.system import init, lock, private, process
from cryptpilot_boot.system.run import run
from cryptpilot_boot.volume import pending
from tests.unit.test_config import SMALL, configure

UMASKS = [0, 0o022, 0o077]
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def modes(directory: Path) -> dict[str, int]:
    """Return the modes of all that is below a directory, but for links."""
    return {str(path.relative_to(directory)): mode(path) for path in directory.rglob("*") if not path.is_symlink()}


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "RUN", tmp_path / "run/cryptpilot")
    return tmp_path / "run/cryptpilot"


def leave_everything(directory: Path) -> None:
    """Leave all that a run leaves in its directory, in an order in which each may be the first."""
    wanted = directory.parent / "wants"
    wanted.mkdir(parents=True, exist_ok=True)
    link = wanted / "cryptpilot@v.service"
    if not link.is_symlink():
        link.symlink_to("/dev/null")
    with lock.held("v", directory / "lock"):
        pass
    pending.note("v", True, directory / "rotation-pending")
    failures.record("v", ["why"], directory / "failed", wanted)
    eventlog.writer("system", directory / "events.jsonl")(Event(1.0, "", "start", "note"))


@pytest.mark.parametrize("umask_of_the_caller", UMASKS, ids=oct)
def test_what_a_run_leaves_has_its_modes_whatever_the_umask(run_directory: Path, umask_of_the_caller: int) -> None:
    os.umask(umask_of_the_caller)
    leave_everything(run_directory)
    assert mode(run_directory) == 0o755
    assert modes(run_directory) == {
        "lock": 0o700,
        "lock/v": 0o600,
        "rotation-pending": 0o700,
        "rotation-pending/v": 0o600,
        "failed": 0o700,
        "failed/v": 0o600,
        "events.jsonl": 0o600,
    }


@pytest.mark.parametrize("umask_of_the_caller", UMASKS, ids=oct)
def test_what_a_generator_writes_is_for_all_to_read_and_for_root_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask_of_the_caller: int
) -> None:
    directory = tmp_path / "etc"
    configure(directory, f"auto_open = true\n{SMALL}")
    monkeypatch.setattr(init, "fstab", lambda: "/dev/mapper/v /data ext4\n")
    os.umask(umask_of_the_caller)
    for name in ("normal", "early"):
        private.directory(tmp_path / name, 0o755)
    generator.generate(load(directory), tmp_path / "normal", tmp_path / "early")
    found = {**modes(tmp_path / "normal"), **modes(tmp_path / "early")}
    assert "dev-mapper-v.device.d/45-cryptpilot.conf" in found
    assert {value for name, value in found.items() if name.endswith(".conf")} == {0o644}
    assert {value for name, value in found.items() if not name.endswith(".conf")} == {0o755}


def test_a_command_has_a_umask_of_its_own_and_its_programs_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path, SMALL)
    os.umask(0)
    assert cli.main(["-c", str(tmp_path), "show"]) == 0
    capsys.readouterr()
    assert os.umask(0) == 0o077
    process.keep_files_private()
    assert run(["sh", "-c", "umask"]) == (0, "0022\n")


@pytest.mark.parametrize("bad", [0o777, 0o775, 0o1777])
def test_a_directory_that_others_could_write_to_is_theirs_no_longer(run_directory: Path, bad: int) -> None:
    """Earlier versions made it with the umask of their caller."""
    run_directory.mkdir(parents=True)
    run_directory.chmod(bad)
    leave_everything(run_directory)
    assert mode(run_directory) == bad & ~0o022


@pytest.mark.parametrize("name", ["lock/v", "failed/v", "events.jsonl", "rotation-pending/v"])
def test_a_link_that_was_planted_is_not_followed(run_directory: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    (run_directory / name).parent.mkdir(parents=True)
    (run_directory / name).symlink_to(target)
    if name == "rotation-pending/v":
        leave_everything(run_directory)  # no failure is worth one to what keeps this
    else:
        with pytest.raises((OSError, CryptpilotError), match="symbolic links"):
            leave_everything(run_directory)
    assert not target.exists()


@pytest.mark.parametrize("name", ["", "lock"])
def test_a_link_in_place_of_a_directory_is_not_followed(run_directory: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run_directory / name).parent.mkdir(parents=True)
    (run_directory / name).symlink_to(elsewhere)
    with pytest.raises(CryptpilotError, match="cannot be locked: "), lock.held("v", run_directory / "lock"):
        pytest.fail("it is held")
    assert list(elsewhere.iterdir()) == []


@as_root
@pytest.mark.parametrize("name", ["", "lock", "lock/v"])
def test_what_another_user_has_made_is_not_used(run_directory: Path, name: str) -> None:
    leave_everything(run_directory)
    os.chown(run_directory / name, NOBODY, NOBODY)
    with pytest.raises(CryptpilotError, match=f"belongs to user {NOBODY}"), lock.held("v", run_directory / "lock"):
        pytest.fail("it is held")


def test_no_mode_is_left_to_the_umask() -> None:
    """A file or directory is made in `system.private`, or with a mode that is said."""
    package = Path(cli.__file__).parents[1]
    makers = (".mkdir(", ".write_text(", ".write_bytes(")
    lines = [(path, line) for path in package.rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) > 1000
    made = [(path.name, line.strip()) for path, line in lines if any(maker in line for maker in makers)]
    assert [where for where in made if "mode=" not in where[1]] == []

"""What a person sees of work that takes long: the step, and how far it is, by the word of the program that does it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Callable

import pytest

from cryptpilot_boot import log, steps
from cryptpilot_boot.cli.work import Work
from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system import block, clone, disk_image
from cryptpilot_boot.system.meter import Meter
from cryptpilot_boot.system.run import run

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """All that was said of how far steps are."""
    told: list[float] = []
    real = steps.advance

    def advance(done: float) -> None:
        told.append(done)
        real(done)

    monkeypatch.setattr(steps, "advance", advance)
    return told


@pytest.fixture
def innermost() -> Callable[[], list[steps.Step]]:
    """The steps at work, but for those of another test's, whose thread was given up and is still at work."""
    others = steps.innermost()
    return lambda: [step for step in steps.innermost() if step not in others]


def require_whole_way(seen: list[float]) -> None:
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.needs("mkfs.ext4", "mkfs.xfs")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_that_is_copied_says_how_far_it_is(tmp_path: Path, seen: list[float], kind: str) -> None:
    """Nothing of it stays but the copy, not even what the program writes as its log."""
    source, target, work = tmp_path / "source", tmp_path / "target", tmp_path / "work"
    work.mkdir()
    for path in (source, target):
        with path.open("wb") as file:
            file.truncate(320 << 20)
    run([f"mkfs.{kind}", "-q", str(source)])
    before = set(Path("/var/tmp").iterdir())  # noqa: S108 - where xfs_copy would leave it
    for _ in range(2):
        seen.clear()
        with log.timed("copy-fs", "root"):
            clone.copy(kind, str(source), str(target), work)
        require_whole_way(seen)
    assert set(Path("/var/tmp").iterdir()) <= before  # noqa: S108


@pytest.mark.needs("qemu-img")
def test_an_image_that_is_packed_or_unpacked_says_how_far_it_is(tmp_path: Path, seen: list[float]) -> None:
    raw, packed, again, part = (tmp_path / name for name in ("raw", "packed", "again", "part"))
    with raw.open("wb") as file:
        file.write(os.urandom(8 << 20))
        file.truncate(64 << 20)
    for source, before, target, after in ((raw, "raw", packed, "qcow2"), (packed, "qcow2", again, "raw")):
        seen.clear()
        disk_image.convert(source, before, target, after)
        require_whole_way(seen)
    seen.clear()
    disk_image.extract(packed, "qcow2", 1 << 20, 4 << 20, part)
    require_whole_way(seen)


def test_what_is_written_in_pieces_is_read_all_the_same(seen: list[float]) -> None:
    meter = Meter()
    for chunk in (
        b"    (1",
        b".33/100",
        b"%)\r   ",
        b"Copying 5 / 9 blocks (55",
        b"%)\b\b\b",
        b" 100%) in 12 s",
        b" at 1",
    ):
        meter.see(chunk)
    assert [round(done, 4) for done in seen] == [0.0133, 0.55, 1.0]


def test_no_more_is_kept_of_a_program_that_never_ends_its_line(seen: list[float]) -> None:
    meter = Meter()
    for _ in range(10):
        meter.see(b"9" * 65536)
    assert [len(kept) for kept in vars(meter).values()] == [16]
    assert seen == []


def test_it_is_the_step_of_the_thread_that_runs_the_program(innermost: Callable[[], list[steps.Step]]) -> None:
    with log.timed("format", "first"):
        ready, done = threading.Event(), threading.Event()

        def other() -> None:
            with log.timed("copy-fs", "second"):
                ready.set()
                done.wait(60)

        thread = threading.Thread(target=other)
        thread.start()
        assert ready.wait(60)
        steps.advance(0.5)
        found = {step.volume: step.done for step in innermost()}
        done.set()
        thread.join()
    assert found == {"first": 0.5, "second": None}
    steps.advance(1.0)  # of no step


def test_a_step_is_said_with_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, innermost: Callable[[], list[steps.Step]]
) -> None:
    written = {"/dev/a": 0, "": 0}
    monkeypatch.setattr(block, "bytes_written", lambda device: written[device])
    work = Work(innermost)
    with log.timed("format", "root", device="/dev/a"):
        (step,) = innermost()
        assert (work.describe(), work.begun()) == ("", [])
        step.since -= 90
        steps.expect(200 << 20)
        written["/dev/a"] = 50 << 20
        assert re.fullmatch(r"root: formatting /dev/a, 25 %, 9\d s, 50 MiB written", work.describe())
        written["/dev/a"] = 500 << 20
        assert "100 %" in work.describe()
        with log.timed("write-image"):
            innermost()[-1].since -= 5
            steps.advance(0.071)
            assert "; packing the image, 7 %, 5 s" in work.describe()
            assert work.begun() == ["root: formatting /dev/a", "packing the image"]
        assert work.begun() == []


def test_a_step_is_said_with_what_it_waits_for(innermost: Callable[[], list[steps.Step]]) -> None:
    """A source that may be asked again is asked until the deadline: a person sees why, and each reason once."""
    work = Work(innermost)
    with log.timed(log.FETCH_KEY, "data"):
        (step,) = innermost()
        step.since -= 3
        assert work.describe() == "data: asking for the key, 3 s"
        assert work.begun() == ["data: asking for the key"]
        for reason, lines in (("the KMS is busy", 1), ("the KMS is busy", 0), ("no route", 1)):
            log.emit(log.FETCH_KEY, "wait", volume="data", facts={"waiting_for": reason})
            assert work.describe() == f"data: asking for the key, 3 s, waiting: {reason}"
            assert work.begun() == [f"data: waiting: {reason}"] * lines


WORK = """
import time
from cryptpilot_boot import log, steps
from cryptpilot_boot.cli import terminal
with terminal.progress(lines={lines}):
    with log.timed("copy-fs", "root", device="/dev/null"):
        steps.advance(0.42)
        time.sleep(2.2)
    with log.timed("mark", "root"):
        pass
    terminal.say("done")
"""


def speak(*, lines: bool, terminal: bool) -> str:
    """Return what is on standard error, a terminal or not, of something that works for two seconds."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "TERM": "xterm"}
    code = WORK.format(lines=lines)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, cwd=CHECKOUT, check=True, env=environment
    )
    assert done.stdout == b"done\n"
    if not terminal:
        os.close(theirs)
    said = os.read(ours, 65536).decode()
    if terminal:
        os.close(theirs)
    os.close(ours)
    return said


def test_without_a_terminal_a_step_that_takes_long_is_one_plain_line() -> None:
    """For a command whose steps do, and on standard error alone."""
    assert speak(lines=True, terminal=False) == "cryptpilot: root: copying the file system to /dev/null\n"
    assert speak(lines=False, terminal=False) == ""


@pytest.mark.parametrize("lines", [True, False])
def test_on_a_terminal_it_is_one_line_that_is_cleared(lines: bool) -> None:
    said = speak(lines=lines, terminal=True)
    assert re.search(r"\r\x1b\[Kroot: copying the file system to /dev/null, 42 %, \d s", said)
    assert "\n" not in said
    assert said.endswith("\r\x1b[K")


def test_a_check_says_what_it_waits_for_without_a_terminal_too(tmp_path: Path) -> None:
    """A source that may answer later is asked until [boot] timeout, 90 s as a rule."""
    directory = tmp_path / "etc"
    (directory / "volumes").mkdir(parents=True)
    (directory / "global.toml").write_text("[boot]\ntimeout = 4\n")
    (directory / "volumes/data.toml").write_text(
        'volume = "data"\ndev = "/dev/no-such-device"\n[encrypt.exec]\ncommand = "sh"\nargs = ["-c", "exit 75"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "cryptpilot_boot", "--config-dir", directory, "config", "check"],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=60,
    )
    assert "data: waiting: sh failed with exit status 75" in done.stderr
    assert "data: error: sh failed with exit status 75" in done.stdout


def test_what_fails_is_said_without_the_progress_before_it() -> None:
    script = (
        "printf 'Copying 0 / 9 blocks (0%%)\\b\\b\\b 5 / 9 blocks (55%%)\\b\\b' >&2; echo 'No space left' >&2; exit 1"
    )
    with pytest.raises(ProgramError) as failure:
        run(["sh", "-c", script], meter=True)
    assert failure.value.what == "sh: No space left (exit status 1)"

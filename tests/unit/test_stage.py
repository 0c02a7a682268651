"""How a stage treats its volumes, without devices: which it waits for, and which it leaves to the next stage."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys, log, tasks, volume
from cryptpilot_boot.boot import console, stage
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.config import Encrypt, Kms, Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, WrongSecret
from cryptpilot_boot.system import block, process
from cryptpilot_boot.system import run as programs
from tests.lab.run import started
from tests.unit.stages import run as run_stage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cryptpilot_boot.keys.secret import Secret

CHECKOUT = Path(__file__).resolve().parents[2]
THERE = "/dev/there"
LONG = 30.0
"""Seconds: what ends within them did not end by itself, and what does not end within them hangs."""


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One device is there, nothing is open, and memory need not be locked."""
    monkeypatch.setattr(volume, "is_open", lambda _: False)
    monkeypatch.setattr(block, "is_block_device", lambda path: path == THERE)
    monkeypatch.setattr(process, "lock_memory", lambda: None)


def one(name: str, dev: str = "/dev/absent") -> Volume:
    return Volume(name, dev, Otp(), Path(f"/etc/cryptpilot/volumes/{name}.toml"), auto_open=True)


def fates(plan: Plan, pivot: Callable[[], Collection[str] | None] = lambda: None) -> dict[str, stage.Outcome]:
    return {outcome.volume.volume: outcome for outcome in run_stage(plan, lambda _: None, pivot)}


def initrd(*volumes: Volume, needed: set[str] | None = None, timeout: int = 2, late_after: int = 0) -> Plan:
    return Plan(
        "initrd", volumes, frozenset(needed or ()), timeout, verbose=False, late_after=late_after, next_stage=True
    )


def opens(_: Volume, secret: Secret, **__: object) -> volume.Opened:
    secret.next()
    return volume.Opened(volume.Opening.CURRENT)


def test_what_is_absent_and_not_needed_is_left_to_the_next_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "open_volume", opens)
    outcomes = fates(initrd(one("a", THERE), one("b"), timeout=600, late_after=2), pivot=tuple)
    assert outcomes["a"].result == "opened"
    assert outcomes["b"].result == "left to the system stage"
    assert "wait-device: /dev/absent" in str(outcomes["b"].error)
    (line,) = console.result(outcomes["b"])
    assert line.startswith("b: not open after ")
    assert line.endswith("left to cryptpilot.service")


@pytest.mark.parametrize(
    ("needed", "pivot"),
    [({"a"}, tuple), (set(), lambda: ("a",)), (set(), lambda: None)],
    ids=["named by root=", "named by fstab", "root not mounted yet"],
)
def test_what_the_pivot_may_need_is_waited_for_until_the_deadline(
    needed: set[str], pivot: Callable[[], Collection[str] | None]
) -> None:
    outcome = fates(initrd(one("a"), needed=needed, timeout=1), pivot)["a"]
    assert outcome.result == "failed"
    assert "did not appear within 1 s" in str(outcome.error)
    assert outcome.needed is (pivot() == ("a",) or needed == {"a"})


def test_what_the_next_stage_opens_too_late_is_waited_for_until_the_deadline() -> None:
    """But the boot goes on without it."""
    plan = initrd(one("a"), timeout=2)
    (outcome,) = run_stage(plan, lambda _: None, tuple, needed_before_network=lambda: ["a"])
    assert (outcome.result, outcome.needed) == ("failed", False)
    assert "did not appear within 2 s" in str(outcome.error)


def test_the_booted_system_waits_until_the_deadline() -> None:
    plan = Plan("system", (one("a"),), frozenset(), 1, verbose=False)
    assert fates(plan, pivot=tuple)["a"].result == "failed"


def test_what_is_being_opened_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left neither half open, nor to the next stage."""
    opening = threading.Event()

    def open_slowly(_: Volume, secret: Secret, **__: object) -> volume.Opened:
        secret.next()
        with log.timed("open", "a"):
            opening.set()
            assert given_up.wait(20)
        return volume.Opened(volume.Opening.CURRENT)

    given_up = threading.Event()
    monkeypatch.setattr(volume, "open_volume", open_slowly)
    outcomes: dict[str, stage.Outcome] = {}

    def take(outcome: stage.Outcome) -> None:
        outcomes[outcome.volume.volume] = outcome
        if outcome.late:
            given_up.set()

    run_stage(initrd(one("a", THERE), one("b"), timeout=600), take, lambda: () if opening.is_set() else None)
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a": "opened",
        "b": "left to the system stage",
    }


def test_nothing_is_done_to_a_device_once_its_volume_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key may come a moment later."""
    given_up = threading.Event()
    done = threading.Event()
    touched = []

    def open_late(one: Volume, secret: Secret, **__: object) -> volume.Opened:
        assert given_up.wait(20)
        try:
            secret.next()
            touched.append(one.volume)
        finally:
            done.set()
        return volume.Opened(volume.Opening.CURRENT)

    monkeypatch.setattr(volume, "open_volume", open_late)
    run_stage(initrd(one("a", THERE), timeout=600), lambda _: given_up.set(), tuple)
    assert done.wait(20)
    assert touched == []


def test_a_boot_that_cannot_go_on_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> volume.Opened:
        raise CryptpilotError("no way")

    monkeypatch.setattr(volume, "open_volume", fail)
    outcomes = fates(initrd(one("a", THERE), one("b"), needed={"a"}, timeout=600, late_after=500))
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a": "failed",
        "b": "left to the system stage",
    }


def test_that_the_pivot_needs_a_volume_may_turn_out_after_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /usr, which the root's fstab names: that is read once the root is mounted."""
    told: list[tuple[str, bool]] = []
    mounted = threading.Event()

    def fail(*_: object, **__: object) -> volume.Opened:
        raise CryptpilotError("no way")

    def take(outcome: stage.Outcome) -> None:
        told.append((outcome.result, outcome.needed))
        threading.Timer(0.5, mounted.set).start()

    monkeypatch.setattr(volume, "open_volume", fail)
    plan = initrd(one("usr", THERE), timeout=600, late_after=500)
    (outcome,) = run_stage(plan, take, lambda: ("usr",) if mounted.is_set() else None)
    assert outcome.needed
    assert told == [("failed", False), ("failed", True)]


def test_what_hangs_before_it_has_begun_is_told_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> volume.Opened:
        with log.timed("look", "a"):
            threading.Event().wait(LONG)
        return volume.Opened(volume.Opening.CURRENT)

    monkeypatch.setattr(volume, "open_volume", hang)
    outcome = fates(initrd(one("a", THERE), needed={"a"}, timeout=1))["a"]
    assert re.fullmatch(r"not done within 1 s \(look: at work: look for \d s\)", str(outcome.error))
    assert "[boot] timeout" in "\n".join(console.result(outcome))


def makes(directory: Path, *, until: Callable[[], bool] | None = None) -> Callable[..., volume.Opened]:
    """Return an `open_volume` that has a program make a file system.

    That ends by itself when `until` holds, or is at work for longer than any test. `directory` shows of each volume
    whether it was begun, and whether what was open for the work was closed again.
    """

    def make(one: Volume, secret: Secret, **_: object) -> volume.Opened:
        secret.next()
        with log.timed("makefs", one.volume):
            try:
                end = f"[ -e {directory}/go-on ]" if until else "false"
                run_until = f"touch {directory}/{one.volume}-begun; until {end}; do sleep 0.05; done"
                programs.run(["timeout", str(LONG), "sh", "-c", run_until])
            finally:
                programs.run(["touch", f"{directory}/{one.volume}-closed"], finish=True)
        return volume.Opened(volume.Opening.CURRENT)

    if until:

        def watch() -> None:
            moment = time.monotonic() + LONG
            while not until() and time.monotonic() < moment:
                time.sleep(0.05)
            (directory / "go-on").touch()

        threading.Thread(target=watch, daemon=True).start()
    return make


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is said of what is at work past the deadline; sooner than else."""
    monkeypatch.setattr(stage, "TELL_EVERY", 1.5)
    lines: list[str] = []
    tell = console.brief(lines.append)
    with log.subscribed(lambda event: tell(event) if event.step == "makefs" else None):
        yield lines


@pytest.mark.parametrize("stage_name", ["system", "initrd"])
def test_what_has_begun_goes_on_past_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str], stage_name: str
) -> None:
    """In the booted system; and in the initrd if the pivot needs it. Nobody else waits for that long."""
    monkeypatch.setattr(volume, "open_volume", makes(tmp_path, until=lambda: bool(said)))
    plan = initrd(one("a", THERE), one("b"), needed={"a"}, timeout=1)
    if stage_name == "system":
        plan = dataclasses.replace(plan, stage="system", needed=frozenset(), late_after=None, next_stage=False)
    outcomes = fates(plan, tuple)
    assert re.fullmatch(
        r"a: still making the file system: \d s; it had begun, and goes on past \[boot\] timeout", said[-1]
    )
    assert {name: outcome.error is None for name, outcome in outcomes.items()} == {"a": True, "b": False}


def test_what_the_pivot_turns_out_not_to_need_is_ended_after_the_deadline_and_left_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    """What it needs is finished first, whatever it is, and so is what it may need."""
    begun = (tmp_path / "c-begun", tmp_path / "d-begun")
    monkeypatch.setattr(volume, "open_volume", makes(tmp_path))
    mounted = threading.Event()

    def pivot() -> Collection[str] | None:
        if said and all(path.exists() for path in begun):
            mounted.set()
        return () if mounted.is_set() else None

    told: list[stage.Outcome] = []
    plan = initrd(one("c", THERE), one("d", THERE), timeout=1)
    run_stage(plan, told.append, pivot)
    assert mounted.is_set()
    assert {outcome.result for outcome in told} == {"left to the system stage"}
    assert all((tmp_path / f"{name}-closed").exists() for name in "cd")
    (line,) = console.result(told[0])
    assert "stopped during makefs: [boot] timeout (1 s) expired" in line
    assert "initrd = false" in line
    assert line.endswith("the pivot does not need it: left to cryptpilot.service")


def test_a_healthy_volume_that_the_pivot_needs_is_not_ended_with_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    needed, other = makes(tmp_path, until=lambda: bool(said)), makes(tmp_path)

    def make(one: Volume, secret: Secret, **__: object) -> volume.Opened:
        return (needed if one.volume == "a" else other)(one, secret)

    monkeypatch.setattr(volume, "open_volume", make)
    outcomes = fates(initrd(one("a", THERE), one("b", THERE), timeout=1), lambda: ("a",))
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a": "opened",
        "b": "left to the system stage",
    }


@pytest.mark.parametrize("step", ["makefs", "open"])
def test_what_hangs_after_it_has_begun_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def hang(one: Volume, secret: Secret, **_: object) -> volume.Opened:
        secret.next()
        for short in ("format", step):
            with log.timed(short, one.volume):
                threading.Event().wait(LONG if short == step else 1.5)
        return volume.Opened(volume.Opening.CURRENT)

    monkeypatch.setattr(stage, "LONGEST", {"format": LONG, "makefs": 1})
    monkeypatch.setattr(stage, "LONGEST_OTHER", 1)
    monkeypatch.setattr(volume, "open_volume", hang)
    plan = initrd(one(f"hangs-{step}", THERE), needed={f"hangs-{step}"}, timeout=1)
    outcome = fates(plan)[f"hangs-{step}"]
    words = {"makefs": "making the file system", "open": "opening"}[step]
    assert re.fullmatch(rf"not done within 1 s \({step}: {words} for \d s\)", str(outcome.error))


def test_a_boot_that_cannot_go_on_does_not_wait_for_what_has_begun_past_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(volume, "open_volume", makes(tmp_path))
    outcomes = fates(initrd(one("a", THERE), one("b"), needed={"b"}, timeout=1))
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a": "left to the system stage",
        "b": "failed",
    }
    assert (tmp_path / "a-closed").exists()


TOLD_TO_END = """
import contextlib
import sys
import time
from pathlib import Path
from cryptpilot_boot import keys, volume
from cryptpilot_boot.boot import console
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.commands import boot_service
from cryptpilot_boot.config import Exec, Volume
from cryptpilot_boot.errors import Interrupted
from cryptpilot_boot.system import block, process, run
from tests.unit.stages import run as run_stage

directory = Path(sys.argv[1])

def prepare(encrypt):
    def ask(_):
        with contextlib.suppress(Interrupted):
            while encrypt.command == "late":
                run.raise_if_interrupted()
                time.sleep(0.05)
        return keys.Passphrase(b"x", strong=True)
    return ask

def make(one, secret, **_):
    secret.next()
    if one.volume == "late":
        (directory / "touched").touch()
    try:
        run.run(["sh", "-c", f"touch {directory}/begun; sleep 1; touch {directory}/opened"], finish=True)
        run.raise_if_interrupted()
        run.run(["touch", f"{directory}/next"])
    finally:
        run.run(["sh", "-c", f"sleep 0.5; touch {directory}/closed"], finish=True)

keys.prepare = prepare
volume.is_open = lambda _: False
volume.open_volume = make
block.is_block_device = lambda path: path != "/dev/absent"
process.lock_memory = lambda: None
volumes = tuple(Volume(name, f"/dev/{name}", Exec(name, (), 1), directory) for name in ("there", "absent", "late"))
plan = Plan("system", volumes, frozenset(), 600, verbose=False)

def boot(*_):
    return all(not outcome.error for outcome in run_stage(plan, lambda outcome: print(console.result(outcome))))

boot_service.boot_service = boot
sys.exit(cli.main(["-c", str(directory), "boot-service", "--stage", "system"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_has_begun_is_finished_when_the_stage_is_told_to_end(tmp_path: Path, number: int) -> None:
    """As by `systemctl stop`; what only waits is not waited for, nothing begins, and nothing is said to have failed."""
    command = [sys.executable, "-c", TOLD_TO_END, str(tmp_path)]
    pipe = subprocess.PIPE
    with started(command, stdout=pipe, stderr=pipe, text=True, cwd=CHECKOUT) as process:
        moment = time.monotonic() + LONG
        while not (tmp_path / "begun").exists() and process.poll() is None and time.monotonic() < moment:
            time.sleep(0.05)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out, err) == (130, "", "cryptpilot: interrupted\n")
    assert {path.name for path in tmp_path.iterdir()} == {"begun", "opened", "closed"}


DEAF = """
import os
import sys
import threading
import time
from pathlib import Path
from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.report import eventlog
from cryptpilot_boot.boot import failures
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.config import Otp, Volume
from cryptpilot_boot.system import block, exitrd, init, process, run

directory = Path(sys.argv[1])

def open_volume(one, secret, **_):
    if one.volume == "silent":
        threading.Event().wait()
    secret.next()
    with log.timed("format", one.volume):
        try:
            run.run(["sh", "-c", f"sleep 5; touch {directory}/done"])
        finally:
            run.run(["touch", f"{directory}/closed"], finish=True)
    return volume.Opened(volume.Opening.CURRENT)

def no_room(*_):
    raise OSError(28, "No space left on device")

volume.is_open = lambda _: False
volume.open_volume = open_volume
block.is_block_device = lambda _: True
process.lock_memory = lambda: None
notes = (failures, "record"), (exitrd, "claim"), (exitrd, "keep")
notes += (init, "say_late"), (init, "say_over"), (init, "stop_boot")
for module, name in notes:
    setattr(module, name, no_room)
initrd = sys.argv[2] == "initrd"
init.in_initrd = lambda: initrd
init.next_fstab = lambda: None
init.kernel_command_line = lambda: "root=/dev/mapper/silent"
eventlog.PATH = Path("/dev/full")
eventlog.writer = lambda name, writer=eventlog.writer: writer(name, eventlog.PATH)
sys.argv[0] = "cryptpilot"
sys.argv[1:] = ["-c", str(directory), "boot-service", "--stage", sys.argv[2]]
cli.run_and_exit()
"""
OTP = """volume = "{0}"
dev = "/dev/{0}"
auto_open = true
[encrypt.otp]
"""


CONSOLES = ("full", "no-reader", "closed", "blocked", "good")


@contextlib.contextmanager
def deaf(directory: Path, console: str, stage_name: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a stage in which a volume fails while another is made; yield it, and where its console is read."""
    (directory / "volumes").mkdir(parents=True)
    for name in ("silent", "made"):
        (directory / "volumes" / f"{name}.toml").write_text(OTP.format(name))
    (directory / "global.toml").write_text("[boot]\ntimeout = 1\nverbose = true\n")
    reader, writer = os.pipe()
    if console == "blocked":
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, bytes(4096))
    elif console == "no-reader":
        os.close(reader)
    redirected = {"full": "> /dev/full 2>&1", "closed": ">&- 2>&-"}.get(console, "2>&1")
    argv = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-c", DEAF, str(directory), stage_name]
    with started(argv, stdout=writer, cwd=CHECKOUT) as process:
        os.close(writer)
        yield process, reader


@pytest.mark.parametrize("stage_name", ["system", "initrd"])
def test_a_stage_that_cannot_be_heard_finishes_what_it_has_begun(tmp_path: Path, stage_name: str) -> None:
    """Whether its console, its event log or its flag files take nothing: another volume failed meanwhile."""
    with contextlib.ExitStack() as stages:  # at one time: each waits for seconds
        running = {console: stages.enter_context(deaf(tmp_path / console, console, stage_name)) for console in CONSOLES}
        assert {console: process.wait(LONG) for console, (process, _) in running.items()} == dict.fromkeys(CONSOLES, 1)
    assert [console for console in CONSOLES if not (tmp_path / console / "closed").exists()] == []
    # the initrd ends it when the boot cannot go on
    done = [console for console in CONSOLES if (tmp_path / console / "done").exists()]
    assert done == (list(CONSOLES) if stage_name == "system" else [])
    said = os.read(running["good"][1], 65536).decode()
    assert ("made: /dev/mapper/made opened in " in said) is (stage_name == "system")
    assert 'volume "silent" could not be opened' in said
    assert "the event log can no longer be written: /dev/full: No space left on device" in said
    assert ("the boot cannot be stopped: No space left on device" in said) is (stage_name == "initrd")


def test_an_outcome_that_cannot_be_told_keeps_no_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: stage.Outcome) -> None:
        raise RuntimeError("a bug in what tells")

    untold: list[dict[str, object]] = []
    monkeypatch.setattr(volume, "open_volume", opens)
    with log.subscribed(lambda event: untold.append(event.facts) if event.step == "untold" else None):
        outcomes = run_stage(initrd(one("a", THERE), one("b"), needed={"b"}, timeout=1), refuse)
    assert [outcome.result for outcome in outcomes] == ["opened", "failed"]
    assert [facts["what"] for facts in untold] == ["what became of a", "what became of b"]
    assert str(untold[0]["error"]).startswith("internal error: RuntimeError at ")


def test_a_bug_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(volume, "open_volume", makes(tmp_path))

    def pivot() -> None:
        if (tmp_path / "a-begun").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(initrd(one("a", THERE), timeout=600), lambda _: None, pivot)
    assert (tmp_path / "a-closed").exists()


def test_an_interruption_while_volumes_are_started_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what is finished by then is reported."""
    interrupted = threading.Event()
    monkeypatch.setattr(volume, "open_volume", makes(tmp_path, until=interrupted.is_set))
    start = tasks.Crew.start

    def start_one(crew: tasks.Crew[object], name: str, work: Callable[[], object]) -> None:
        if name == "b":
            moment = time.monotonic() + LONG
            while not (tmp_path / "a-begun").exists() and time.monotonic() < moment:
                time.sleep(0.05)
            interrupted.set()
            raise KeyboardInterrupt
        start(crew, name, work)

    monkeypatch.setattr(tasks.Crew, "start", start_one)
    told: list[tuple[str, str]] = []
    with pytest.raises(KeyboardInterrupt):
        run_stage(
            initrd(one("a", THERE), one("b", THERE), timeout=600),
            lambda outcome: told.append((outcome.volume.volume, outcome.result)),
        )
    assert (tmp_path / "a-closed").exists()
    assert told == [("a", "opened")]


def test_an_interruption_while_a_result_is_reported_loses_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot's console, and the unit of the volume, would not have it."""
    monkeypatch.setattr(volume, "open_volume", opens)
    told: list[str] = []
    interruptions = [KeyboardInterrupt()]

    def report(outcome: stage.Outcome) -> None:
        if interruptions:
            programs.interrupt()
            raise interruptions.pop()
        told.append(outcome.result)

    with pytest.raises(KeyboardInterrupt):
        run_stage(initrd(one("a", THERE), timeout=600), report)
    assert told == ["opened"]


def test_what_takes_long_is_told_and_named_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: here, a disk that is there and answers slowly."""

    def read(one: Volume, *_: object, **__: object) -> volume.Opened:
        with log.timed("probe", one.volume, device=one.dev):
            threading.Event().wait(LONG)
        return volume.Opened(volume.Opening.CURRENT)

    monkeypatch.setattr(stage, "TELL_EVERY", 1)
    monkeypatch.setattr(volume, "open_volume", read)
    said: list[str] = []
    with log.subscribed(console.brief(said.append)):
        outcome = fates(initrd(one("slow", THERE), needed={"slow"}, timeout=4))["slow"]
    told = [re.fullmatch(r"slow: still reading /dev/there: (\d) s", line) for line in said]
    seconds = [int(match[1]) for match in told if match]
    assert seconds == sorted(set(seconds))
    assert len(seconds) >= 2
    assert re.fullmatch(r"not done within 4 s \(probe: reading /dev/there for \d s\)", str(outcome.error))


def test_times_are_not_cut_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_slowly(_: Volume, secret: Secret, **__: object) -> volume.Opened:
        secret.next()
        with log.timed("open", "a"):
            time.sleep(3)
        return volume.Opened(volume.Opening.CURRENT)

    monkeypatch.setattr(volume, "open_volume", open_slowly)
    outcome = fates(initrd(one("a", THERE), needed={"a"}, timeout=1))["a"]
    assert outcome.seconds >= 3


def test_a_failure_says_what_becomes_of_the_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> volume.Opened:
        raise CryptpilotError("no way", "mend it")

    monkeypatch.setattr(volume, "open_volume", fail)
    outcome = fates(initrd(one("a", THERE), needed={"a"}))["a"]
    needed, with_shell = ("\n".join(console.result(outcome, shell=shell)) for shell in (False, True))
    other = "\n".join(console.result(fates(initrd(one("b", THERE), timeout=30, late_after=20), pivot=tuple)["b"]))
    assert "stops here" in needed
    assert "by hand:  rd.shell on the kernel command line gives a shell" in needed
    assert "again:    cryptpilot open a; exit" in with_shell
    assert "or:       cryptpilot open a --recovery-key; exit (if it has one)" in with_shell
    assert "exit" not in needed
    assert "by hand" not in with_shell
    assert "cryptpilot.service tries again" in other
    assert "again:" not in other


def test_the_unit_to_restart_is_named_so_that_a_shell_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "bring_up", lambda *_: 1 / 0)
    for name, unit in (("data", "cryptpilot@data.service"), ("my-local", r"'cryptpilot@my\x2dlocal.service'")):
        plan = Plan("system", (one(name, THERE),), frozenset(), 20, verbose=False)
        assert f"now:      try again: systemctl restart {unit}" in "\n".join(console.result(fates(plan)[name]))


def kms_volume(name: str) -> Volume:
    return dataclasses.replace(one(name, THERE), encrypt=Kms("kst-1", "secret", "{}", "password", "pem"))


def test_a_volume_that_the_previous_value_opened_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prepare(encrypt: Encrypt) -> keys.Ask:
        def ask(_: float) -> keys.Passphrase:
            asked.append(getattr(encrypt, "stage", ""))
            return keys.Passphrase(b"x", strong=True)

        return ask

    def open_with_previous(_: Volume, secret: Secret) -> volume.Opened:
        secret.reject(secret.next(), WrongSecret("no key slot takes it"))
        secret.next()
        return volume.Opened(volume.Opening.PREVIOUS)

    facts: list[dict[str, object]] = []
    monkeypatch.setattr(keys, "prepare", prepare)
    monkeypatch.setattr(volume, "open_volume", open_with_previous)
    with log.subscribed(lambda event: facts.append(event.facts) if event.step == "outcome" else None):
        outcome = fates(initrd(kms_volume("a")))["a"]
    assert (outcome.result, outcome.rotation_pending, asked) == ("opened", True, ["ACSCurrent", "ACSPrevious"])
    assert facts[-1]["rotation_pending"] is True
    opened, warning = console.result(outcome)
    assert opened.startswith("a: /dev/mapper/a opened in ")
    assert warning.startswith("a: warning: the previous value of its secret opened it; ")
    assert warning.endswith("cryptpilot rotate a")


def test_a_volume_may_be_given_up_while_it_asks_for_the_previous_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was done to its device with the current one."""
    asking = threading.Event()
    given_up = threading.Event()
    done = threading.Event()
    touched = []

    def prepare(encrypt: Encrypt) -> keys.Ask:
        def ask(_: float) -> keys.Passphrase:
            if getattr(encrypt, "stage", "") == "ACSPrevious":
                asking.set()
                assert given_up.wait(20)
            return keys.Passphrase(b"x", strong=True)

        return ask

    def open_with_previous(one: Volume, secret: Secret) -> volume.Opened:
        secret.reject(secret.next(), WrongSecret("no key slot takes it"))
        try:
            secret.next()
            touched.append(one.volume)
        finally:
            done.set()
        return volume.Opened(volume.Opening.PREVIOUS)

    monkeypatch.setattr(keys, "prepare", prepare)
    monkeypatch.setattr(volume, "open_volume", open_with_previous)
    outcomes: list[str] = []

    def take(outcome: stage.Outcome) -> None:
        outcomes.append(outcome.result)
        given_up.set()

    run_stage(initrd(kms_volume("a"), timeout=600), take, lambda: () if asking.is_set() else None)
    assert done.wait(20)
    assert (outcomes, touched) == (["left to the system stage"], [])

"""Programs are run to their end; an interruption ends what may be ended, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import Interrupted, ProgramError
from cryptpilot_boot.passphrase import Passphrase, SecretBuffer
from cryptpilot_boot.system import cryptsetup, mappings, programs
from cryptpilot_boot.system import run as module
from cryptpilot_boot.system.luks_header import Header
from cryptpilot_boot.system.run import interrupt, read_secret, run
from tests.lab.run import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
LONG = 30.0
"""Seconds no test is allowed to take: what ends within them did not end by itself."""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """See that each test leaves neither processes, threads nor open files."""
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    threads = set(threading.enumerate())
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert set(threading.enumerate()) <= threads
    # a thread that another test left at work may have a file open just now
    wait_until(lambda: set(os.listdir("/proc/self/fd")) <= before)  # noqa: PTH208


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(process: str) -> bool:
    """Tell whether there is a process of that number; one that only waits to be reaped is none."""
    try:
        return "Z" not in Path("/proc", process.strip(), "stat").read_text().rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


def begun(path: Path) -> str:
    """Return shell code that says it is running, which `wait_until(path.exists)` sees."""
    return f"touch {path};"


def test_what_it_said_and_how_it_ended_is_returned() -> None:
    assert run(["sh", "-c", "echo out; echo err >&2; exit 3"], accept=(0, 3)) == (3, "out\n")


def test_a_failure_is_told_in_the_programs_own_last_words() -> None:
    with pytest.raises(ProgramError) as caught:
        run(["sh", "-c", r"printf 'a\nb\nc\n\033[31md\n' >&2; exit 4"])
    assert (caught.value.what, caught.value.status) == ("sh: b; c;  [31md (exit status 4)", 4)


def test_a_failure_without_a_word_is_told_too() -> None:
    with pytest.raises(ProgramError, match=r"^false: failed without a word \(exit status 1\)$"):
        run(["false"])


def test_last_words_are_short() -> None:
    with pytest.raises(ProgramError) as caught:
        run(["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1"])
    assert len(caught.value.what) < 350
    assert caught.value.what.endswith("xxxend (exit status 1)")


@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program"])
def test_a_program_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ProgramError, match=f"^{name}: program not found") as caught:
        run([name])
    assert caught.value.hint == f"install {name}"


def test_a_program_that_cannot_be_run_is_named() -> None:
    with pytest.raises(ProgramError, match=r"^/usr is a directory, and no program$"):
        run(["/usr"])


def test_much_goes_in_and_out_at_once() -> None:
    text = "0123456789abcdef" * 65536
    assert run(["cat"], stdin=memoryview(text.encode())) == (0, text)


def test_a_program_need_not_read_what_it_is_given() -> None:
    assert run(["true"], stdin=memoryview(bytes(1 << 20))) == (0, "")


def test_a_program_has_a_session_of_its_own_and_nothing_of_ours() -> None:
    os.environ["CRYPTPILOT_TEST"] = "1"
    with Path("/dev/null").open() as file:
        os.set_inheritable(file.fileno(), True)
        _, output = run(
            ["sh", "-c", "read -r line < /proc/$$/stat; set -- $line; echo $1 $6; env; pwd; ls /proc/$$/fd"]
        )
    del os.environ["CRYPTPILOT_TEST"]
    lines = output.splitlines()
    process, session = lines[0].split()
    assert process == session
    assert {"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/"} < set(lines)
    assert "CRYPTPILOT_TEST=1" not in lines
    assert [line for line in lines if line.isdigit()] == ["0", "1", "2"]


def test_a_descriptor_is_passed_on_if_that_is_asked_for() -> None:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(descriptor, b"hello")
    try:
        assert run(["cat", f"/proc/self/fd/{descriptor}"], pass_fds=[descriptor]) == (0, "hello")
    finally:
        os.close(descriptor)


def test_what_runs_on_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """As ssh leaves a process behind that holds on to standard error."""
    started = time.monotonic()
    assert run(["sh", "-c", f"sleep {LONG} > /dev/null & echo $! > {tmp_path}/pid; echo done"]) == (0, "done\n")
    assert time.monotonic() - started < LONG / 2
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_program_that_ends_has_written_all_it_writes(tmp_path: Path, stream: str) -> None:
    """Whatever it left running may hold on to its output for ever, and write to it without a pause."""
    background = f"sh -c 'exec >&{stream}; while echo late; do :; done' & echo $! > {tmp_path}/pid"
    started = time.monotonic()
    status, output = run(["sh", "-c", f"echo early; {background}; sleep 0.1; exit 0"])
    assert (status, output[:6]) == (0, "early\n")
    assert time.monotonic() - started < LONG / 2
    wait_until(lambda: not is_running((tmp_path / "pid").read_text()))


def test_all_that_stands_in_a_pipe_at_the_end_is_read() -> None:
    for size in (1, 4095, 4096, 4097, 65535, 65536):
        with SecretBuffer(1 << 20) as buffer:
            ended = read_secret(["sh", "-c", f"sleep 5 & exec head -c {size} /dev/zero"], buffer, timeout=LONG)
            assert (ended.status, len(buffer.reveal()), ended.in_time) == (0, size, True)


def test_an_interruption_ends_what_runs_on_whichever_threads(tmp_path: Path) -> None:
    def work(number: int) -> str:
        code = (
            f"sleep {2 * LONG} & echo $! > {tmp_path}/{number}; mv {tmp_path}/{number} {tmp_path}/begun-{number}; wait"
        )
        with pytest.raises(Interrupted, match=r"^interrupted$"):
            run(["sh", "-c", code])
        return "ended"

    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        results = pool.map(work, range(4))
        wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 4)
        interrupt()
        assert list(results) == ["ended"] * 4
    assert time.monotonic() - started < LONG / 2
    # what the programs started is in their sessions and goes as well
    wait_until(lambda: not any(is_running(file.read_text()) for file in tmp_path.iterdir()))


def test_a_program_that_will_not_end_is_killed(tmp_path: Path) -> None:
    code = f"trap '' TERM; echo $$ > {tmp_path}/pid; {begun(tmp_path / 'begun')} while :; do sleep 0.05; done"
    with ThreadPoolExecutor() as pool:
        result = pool.submit(run, ["sh", "-c", code], patience=0.3)
        wait_until((tmp_path / "begun").exists)
        started = time.monotonic()
        interrupt()
        assert isinstance(result.exception(LONG / 2), Interrupted)
    assert 0.3 <= time.monotonic() - started < LONG / 2
    assert not is_running((tmp_path / "pid").read_text())


def test_a_program_may_tidy_up_before_it_ends(tmp_path: Path) -> None:
    code = (
        f"trap 'sleep 0.3; touch {tmp_path}/tidy; exit' TERM; {begun(tmp_path / 'begun')} while :; do sleep 0.05; done"
    )
    with ThreadPoolExecutor() as pool:
        result = pool.submit(run, ["sh", "-c", code])
        wait_until((tmp_path / "begun").exists)
        interrupt()
        assert isinstance(result.exception(LONG / 2), Interrupted)
    assert (tmp_path / "tidy").exists()


def test_after_an_interruption_nothing_is_started(tmp_path: Path) -> None:
    interrupt()
    with pytest.raises(Interrupted):
        run(["touch", str(tmp_path / "file")])
    with pytest.raises(Interrupted), SecretBuffer(10) as buffer:
        read_secret(["touch", str(tmp_path / "file")], buffer, timeout=LONG)
    assert not (tmp_path / "file").exists()


def test_what_has_to_be_finished_is_finished(tmp_path: Path) -> None:
    code = f"{begun(tmp_path / 'begun')} sleep 0.3; cat"
    with ThreadPoolExecutor() as pool:
        result = pool.submit(run, ["sh", "-c", code], stdin=memoryview(b"in"), finish=True)
        wait_until((tmp_path / "begun").exists)
        interrupt()
        assert result.result(LONG) == (0, "in")


def test_what_has_to_be_finished_is_started_even_after_an_interruption() -> None:
    interrupt()
    assert run(["echo", "tidy"], finish=True) == (0, "tidy\n")


def test_a_mapping_is_closed_after_an_interruption_but_none_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda _: "/bin/true")
    with Passphrase(b"secret", strong=True) as passphrase, Header() as header:
        cryptsetup.luks_open("/dev/null", "name", passphrase, header, journal=True)
        interrupt()
        with pytest.raises(Interrupted):
            cryptsetup.luks_open("/dev/null", "name", passphrase, header, journal=True)
    cryptsetup.close("name")
    cryptsetup.set_subsystem("/dev/null", "mark")


def test_a_mapping_whose_opening_has_begun_is_opened_and_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "cryptsetup"
    # one that makes the mapping does not end for the asking
    script.write_text(
        f"#!/bin/sh\ntrap '' TERM\ncat; {begun(tmp_path / 'begun')} sleep 0.3; echo $1 >> {tmp_path}/done\n"
    )
    script.chmod(0o700)
    monkeypatch.setattr(programs, "find", lambda _: str(script))
    made = mappings.Mapping("name", "CRYPT-LUKS2-", tmp_path)
    monkeypatch.setattr(mappings, "find", lambda name: made if name == made.name else None)
    with ThreadPoolExecutor() as pool, Passphrase(b"secret", strong=True) as passphrase, Header() as header:
        result = pool.submit(cryptsetup.luks_open, "/dev/null", "name", passphrase, header, journal=True)
        wait_until((tmp_path / "begun").exists)
        interrupt()
        with pytest.raises(Interrupted):
            result.result(LONG)
    assert (tmp_path / "done").read_text() == "open\nclose\n"


SIGNALED = """
import signal, sys
from cryptpilot_boot.errors import Interrupted
from cryptpilot_boot.system.run import run
finish, directory = sys.argv[1] == "finish", sys.argv[2]
handler = signal.SIG_IGN if sys.argv[1] == "ignored" else signal.default_int_handler
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, handler)
code = f"touch {directory}/begun; sleep 1; touch {directory}/finished"
try:
    run(["sh", "-c", code], finish=finish)
    print("finished")
    run(["touch", f"{directory}/next"])
except Interrupted as error:
    print(error)
print(all(signal.getsignal(number) is handler for number in (signal.SIGINT, signal.SIGTERM)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("how", "said", "left"),
    [
        ("finish", "finished\ninterrupted\nTrue\n", {"begun", "finished"}),
        ("do-not", "interrupted\nTrue\n", {"begun"}),
        ("ignored", "finished\nTrue\n", {"begun", "finished", "next"}),
    ],
)
def test_a_signal_that_raises_is_an_interruption(
    tmp_path: Path, number: int, how: str, said: str, left: set[str]
) -> None:
    command = [sys.executable, "-c", SIGNALED, how, str(tmp_path)]
    with started(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(number)
        assert process.communicate(timeout=LONG)[0] == said
    time.sleep(1.2 if how == "do-not" else 0)  # what was not ended would have finished by now
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_program_that_is_still_asked_when_this_process_ends_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where another source was faster; what changes something goes on."""
    with ThreadPoolExecutor() as pool, SecretBuffer(100) as buffer:
        asked = pool.submit(read_secret, ["sh", "-c", f"touch {tmp_path}/begun; exec sleep 25"], buffer)
        changing = pool.submit(run, ["sleep", "0.5"])
        wait_until((tmp_path / "begun").exists)
        module.give_up_questions()
        assert asked.result(5).status == -signal.SIGTERM
        assert changing.result(LONG)[0] == 0
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("there is none"))
    module.give_up_questions()


def test_the_command_ends_what_is_still_asked(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    script = f"""
import threading, time
from pathlib import Path
from cryptpilot_boot.cli import main
from cryptpilot_boot.passphrase import SecretBuffer
from cryptpilot_boot.system import run
command = ["sh", "-c", "echo $$ > {said}; exec sleep 25"]
threading.Thread(target=run.read_secret, args=[command, SecretBuffer(9)], daemon=True).start()
while not Path("{said}").exists() or not Path("{said}").read_text():
    time.sleep(0.01)
main.main = lambda: 0
main.run_and_exit()
"""
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, check=True, timeout=LONG)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{said.read_text().strip()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)

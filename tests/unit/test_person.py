"""How a person is asked: by systemd's agents, by the boot screen, or on the console itself."""

from __future__ import annotations

import os
import pty
import termios
import threading
import time
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system import init, person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptpilot_boot.passphrase import Passphrase

LONG = 30.0


@pytest.fixture
def dismissal() -> Iterator[person.Dismissal]:
    made = person.Dismissal()
    yield made
    made.close()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program in the place of systemd's."""

    def put(script: str) -> Path:
        path = tmp_path / "systemd-ask-password"
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/words\n{script}\n")
        path.chmod(0o755)
        return tmp_path

    monkeypatch.setattr(init, "runs_systemd", lambda: True)
    monkeypatch.setattr(person, "ASK", str(tmp_path / "systemd-ask-password"))
    return put


def text(passphrase: Passphrase | None) -> bytes:
    assert passphrase is not None
    with passphrase:
        return bytes(passphrase.reveal())


def test_systemds_agents_ask_for_as_long_as_it_takes(
    program: Callable[[str], Path], dismissal: person.Dismissal
) -> None:
    work = program("printf ' a key \\n'")
    assert text(person.ask("Key of\x1b[2J root", "cryptpilot:root", dismissal)) == b" a key "
    words = (work / "words").read_text().splitlines()
    assert {"--no-tty", "--timeout=0", "--id=cryptpilot:root"} <= set(words)
    assert words[-1] == "Key of [2J root:"


def test_a_question_that_is_taken_back_ends_in_good_order(
    program: Callable[[str], Path], dismissal: person.Dismissal
) -> None:
    """On SIGTERM systemd's program removes the question, and its agents take it off the console."""
    here = 'cd "$(dirname "$0")"'
    work = program(f"{here}; trap 'touch gone; exit 1' TERM; touch there; while :; do sleep 0.05; done")

    def act() -> None:
        while not (work / "there").exists():
            time.sleep(0.01)
        dismissal.dismiss()

    threading.Thread(target=act, daemon=True).start()
    assert person.ask("Key", "name", dismissal) is None
    assert (work / "gone").exists()


def test_no_answer_and_no_way_are_told_apart(program: Callable[[str], Path], dismissal: person.Dismissal) -> None:
    work = program("echo 'Failed to query password: Operation canceled' >&2; exit 1")
    with pytest.raises(ProgramError, match="Operation canceled") as caught:
        person.ask("Key", "name", dismissal)
    assert not isinstance(caught.value, person.NoWay)
    (work / "systemd-ask-password").unlink()
    with pytest.raises(person.NoWay, match="systemd-ask-password is not there"):
        person.ask("Key", "name", dismissal)


def test_without_systemd_a_boot_screen_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dismissal: person.Dismissal
) -> None:
    plymouth = tmp_path / "plymouth"
    plymouth.write_text('#!/bin/sh\n[ "$1" = --ping ] || printf %s "$*"\n')
    plymouth.chmod(0o755)
    monkeypatch.setattr(init, "runs_systemd", lambda: False)
    monkeypatch.setattr(person, "PLYMOUTH", str(plymouth))
    assert text(person.ask("Key of root", "name", dismissal)) == b"ask-for-password --prompt=Key of root"


class Console:
    """A terminal in place of the console."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.path = os.ttyname(self.slave)

    def local(self) -> int:
        flags: int = termios.tcgetattr(self.slave)[3]
        return flags

    def read_until(self, end: bytes) -> bytes:
        seen = b""
        while end not in seen:
            seen += os.read(self.master, 1024)
        return seen


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    made = Console()
    monkeypatch.setattr(init, "runs_systemd", lambda: False)
    monkeypatch.setattr(person, "PLYMOUTH", "/nowhere/plymouth")
    monkeypatch.setattr(person, "CONSOLE", made.path)
    yield made
    os.close(made.master)
    os.close(made.slave)


def test_on_the_console_itself_nothing_is_shown_and_all_is_as_before_afterwards(
    tty: Console, dismissal: person.Dismissal
) -> None:
    before = tty.local()
    seen: list[bytes] = []

    def type_it() -> None:
        seen.append(tty.read_until(b"root: "))
        os.write(tty.master, b"sl\x7f\x7fa \x03key\r")  # erased, and no signal

    threading.Thread(target=type_it, daemon=True).start()
    assert text(person.ask("Key of root", "name", dismissal)) == b"a \x03key"
    assert tty.local() == before
    seen.append(tty.read_until(b"\n"))
    assert b"key\r" not in b"".join(seen)


def test_a_question_on_the_console_is_taken_back(tty: Console, dismissal: person.Dismissal) -> None:
    before = tty.local()

    def act() -> None:
        tty.read_until(b"root: ")
        dismissal.dismiss()

    threading.Thread(target=act, daemon=True).start()
    assert person.ask("Key of root", "name", dismissal) is None
    assert tty.local() == before


def test_what_was_typed_when_the_question_is_taken_back_is_left_to_nobody(
    tty: Console, dismissal: person.Dismissal
) -> None:
    def act() -> None:
        tty.read_until(b"root: ")
        os.write(tty.master, b"half a key")
        dismissal.dismiss()

    threading.Thread(target=act, daemon=True).start()
    assert person.ask("Key of root", "name", dismissal) is None
    os.write(tty.master, b"root\r")
    assert os.read(tty.slave, 100) == b"root\n"


def test_a_console_that_is_at_its_end_gives_no_answer(tty: Console, dismissal: person.Dismissal) -> None:
    """An empty line is asked again at once, and this would come as fast as it is read."""

    def act() -> None:
        tty.read_until(b"root: ")
        os.write(tty.master, b"\x04")

    threading.Thread(target=act, daemon=True).start()
    with pytest.raises(ProgramError, match="before an answer came"):
        person.ask("Key of root", "name", dismissal)


def test_one_question_at_a_time_stands_on_the_console(tty: Console, dismissal: person.Dismissal) -> None:
    answers: list[bytes] = []
    second = person.Dismissal()

    def ask(question: str, taken_back: person.Dismissal) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.append(text(person.ask(question, "name", taken_back))))
        thread.start()
        return thread

    first = ask("First", dismissal)
    assert b"Second" not in tty.read_until(b"First: ")
    other = ask("Second", second)
    third = person.Dismissal()
    third.dismiss()
    assert person.ask("Third", "name", third) is None
    os.write(tty.master, b"one\r")
    first.join(LONG)
    assert b"Third" not in tty.read_until(b"Second: ")
    os.write(tty.master, b"two\r")
    other.join(LONG)
    assert answers == [b"one", b"two"]


@pytest.mark.usefixtures("tty")
def test_where_there_is_no_console_there_is_no_way(
    dismissal: person.Dismissal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person, "CONSOLE", "/nowhere/console")
    with pytest.raises(person.NoWay, match="/nowhere/console cannot be opened"):
        person.ask("Key", "name", dismissal)

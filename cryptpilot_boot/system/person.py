"""Asking the person at the console for a secret. Uses: systemd-ask-password; plymouth.

With systemd its agents ask: on each console, on the boot screen (plymouth), and later in the terminals of logged-in
users. Without it, as in some initrds, plymouth is asked where it shows a boot screen, and else the console itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ProgramError, printable
from cryptpilot_boot.passphrase import Passphrase, SecretBuffer
from cryptpilot_boot.system import init, programs
from cryptpilot_boot.system.run import read_secret, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK = "systemd-ask-password"
PLYMOUTH = "plymouth"
CONSOLE = "/dev/console"
_LONGEST = 4096  # bytes; what a terminal takes as one line
_END = ord("\n")
_LOOK = 0.2  # seconds
# What stands on the console itself is one question at a time.
_console = threading.Lock()


class NoWay(ProgramError):
    """There is nothing on this system that could ask a person."""


class Dismissal:
    """Takes a question back, from any thread: the prompt goes away."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that is readable from the moment on at which the question was taken back."""
        return self._read

    def dismiss(self) -> None:
        """Take the question back."""
        os.write(self._write, b"x")

    def close(self) -> None:
        """Give the descriptors back; no question may stand then."""
        os.close(self._read)
        os.close(self._write)


def ask(question: str, name: str, dismissal: Dismissal) -> Passphrase | None:
    """Ask for a secret, which is not shown, and return the line that was typed, without its end; None once dismissed.

    question: one line, without a colon. name: what agents know the question by. Raises NoWay, ProgramError when there
    was no answer, and Interrupted.
    """
    with SecretBuffer(_LONGEST) as buffer:
        if init.runs_systemd():
            answered = _by_program(_systemd(printable(question), name), buffer, dismissal)
        elif _shows_boot_screen():
            command = [PLYMOUTH, "ask-for-password", f"--prompt={printable(question)}"]
            answered = _by_program(command, buffer, dismissal)
        else:
            answered = _by_console(printable(question), buffer, dismissal)
        return _line(buffer.reveal()) if answered else None


def _systemd(question: str, name: str) -> list[str]:
    return [ASK, "--no-tty", "--timeout=0", "--icon=drive-harddisk", f"--id={name}", f"{question}:"]


def _shows_boot_screen() -> bool:
    return programs.is_there(PLYMOUTH) and run([PLYMOUTH, "--ping"], accept=range(256))[0] == 0


def _by_program(command: list[str], buffer: SecretBuffer, dismissal: Dismissal) -> bool:
    """Have a program ask; False once dismissed."""
    if not programs.is_there(command[0]):
        raise NoWay(f"{command[0]} is not there", "an image that was made with [boot] ask = true has it")
    ended = read_secret(command, buffer, unwanted=dismissal.fileno())
    if not ended.in_time:
        return False
    if ended.status != 0:
        raise ProgramError(f"{command[0]}: {ended.said or 'no answer'} (exit status {ended.status})")
    return True


def _by_console(question: str, buffer: SecretBuffer, dismissal: Dismissal) -> bool:
    """Ask on the console itself, once no other question stands there; False once dismissed."""
    while not _console.acquire(timeout=_LOOK):
        if select.select([dismissal.fileno()], [], [], 0)[0]:
            return False
    try:
        return _ask_on_console(question, buffer, dismissal)
    finally:
        _console.release()


def _ask_on_console(question: str, buffer: SecretBuffer, dismissal: Dismissal) -> bool:
    try:
        console = os.open(CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise NoWay(f"{CONSOLE} cannot be opened: {error.strerror}", "see the console= of the kernel") from None
    try:
        with _hidden(console):
            os.write(console, f"\r\n{question}: ".encode("ascii", "replace"))
            return _read_line(console, buffer, dismissal)
    except (OSError, termios.error) as error:
        raise ProgramError(f"{CONSOLE}: cannot be read: {error}") from None
    finally:
        os.close(console)


@contextlib.contextmanager
def _hidden(terminal: int) -> Iterator[None]:
    """Switch a terminal to whole lines, without echo and without signals.

    What is typed and was not read is gone afterwards: whatever reads the terminal next would show it, or log it.
    """
    before = termios.tcgetattr(terminal)
    local = (before[3] | termios.ICANON) & ~(termios.ECHO | termios.ISIG)
    termios.tcsetattr(terminal, termios.TCSADRAIN, [before[0] | termios.ICRNL, *before[1:3], local, *before[4:]])
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        with contextlib.suppress(OSError):  # it is no more than the end of the line
            os.write(terminal, b"\r\n")


def _read_line(terminal: int, buffer: SecretBuffer, dismissal: Dismissal) -> bool:
    while True:
        ready, _, _ = select.select([terminal, dismissal.fileno()], [], [])
        if dismissal.fileno() in ready:
            return False
        if buffer.fill(terminal, _LONGEST):
            if buffer.reveal()[-1] == _END:
                return True
        elif len(buffer.reveal()):
            return True
        else:  # a line that is hung up says so at once, however often it is read
            raise ProgramError(f"{CONSOLE}: it was closed before an answer came")


def _line(typed: memoryview) -> Passphrase:
    """Return what was typed without the end of the line."""
    end = len(typed)
    while end and typed[end - 1] in b"\r\n":
        end -= 1
    return Passphrase(typed[:end], strong=False)

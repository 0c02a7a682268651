"""Questions to a person: confirmation, and secrets that are typed."""

from __future__ import annotations

import os
import sys
import termios
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_LONGEST_SECRET = 1024


def confirmation(arguments: argparse.Namespace) -> Callable[[str], bool]:
    """Return what answers the questions of a command: the person, or its option `--yes`."""
    return (lambda _: True) if arguments.yes else confirm


def confirm(question: str) -> bool:
    """Ask on the terminal; True for yes. Raises CryptpilotError if there is no terminal."""
    if not sys.stdin.isatty():
        raise CryptpilotError("there is no terminal to ask for confirmation on", "give --yes if you are sure")
    _ask(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _ask(question: str) -> None:
    """Show a question on standard error, since standard output may be a file. Raises CryptpilotError if that fails."""
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
    except OSError as error:
        raise CryptpilotError(
            f"standard error, which shows the question, cannot be written: {error.strerror}",
            "nothing was changed; call it from a terminal",
        ) from None


def asks() -> bool:
    """Tell whether standard input is a terminal."""
    return sys.stdin.isatty()


def read_secret_line(prompt: str) -> bytearray:
    """Read a line from the terminal without showing it, or from another standard input. The caller wipes it.

    Raises CryptpilotError if the line is empty or too long.
    """
    with _hidden(prompt):
        line = bytearray()
        # byte by byte: what follows the line is for another reader
        while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
            line += byte
            if len(line) > _LONGEST_SECRET:
                raise CryptpilotError(f"the line that was read is longer than {_LONGEST_SECRET} characters")
    if not line.strip():
        raise CryptpilotError("nothing was typed")
    return line


@contextmanager
def _hidden(prompt: str) -> Iterator[None]:
    """Turn off the echo of the terminal."""
    terminal = sys.stdin.fileno()
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(terminal)
    try:
        termios.tcsetattr(terminal, termios.TCSADRAIN, [*before[:3], before[3] & ~termios.ECHO, *before[4:]])
        # only now, or the terminal would show what a quick person types
        _ask(prompt)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        with suppress(OSError):  # only the end of the line is missing
            sys.stderr.write("\n")

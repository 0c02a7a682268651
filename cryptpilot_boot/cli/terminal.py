"""Talking to the person: lines, colors, questions, and what is at work just now."""

from __future__ import annotations

import os
import shutil
import sys
import termios
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.commands.each import Result
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.log import Event

_COLORS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36"}  # ECMA-48, 8.3.117
_CLEAR_LINE = "\r\x1b[K"
# Steps a person waits for, in words; what is not here takes no time.
_STEPS = {
    "fetch-key": "asking for the key",
    "add-key": "adding a key slot",
    "format": "formatting",
    "makefs": "making the file system",
    "check-fs": "checking the file system",
    "open": "opening",
    "close": "closing",
    "remove-key": "removing old key slots",
    "make-image": "dracut makes the image",
    "check-image": "checking the image",
}
_WIDTH = 72  # characters, where no terminal says otherwise
_TICK = 0.5  # seconds
_LONGEST_SECRET = 1024
_SILENT_FOR = 1.0  # seconds a step may take before it is worth a word

_speaking = threading.RLock()
_status = ""


def require_streams() -> None:
    """Put /dev/null where a standard stream was closed, so that no other file takes its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


class CannotSay(OSError):
    """Standard output does not take what is written to it, though somebody is there to read it."""


def say(line: str) -> None:
    """Print a line to standard output. Raises BrokenPipeError when its reader has gone, and CannotSay."""
    try:
        _write(sys.stdout, line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotSay(error.errno, error.strerror) from None


def complain(line: str) -> None:
    """Print a line to standard error."""
    _write(sys.stderr, f"cryptpilot: {line}")


def explain(error: CryptpilotError, subject: str = "") -> None:
    """Print what went wrong, with what, and what to do next."""
    complain(f"error: {subject}: {error.what}" if subject else f"error: {error.what}")
    if error.hint:
        complain(f"  {error.hint}")


def report(one: Volume, result: Result) -> None:
    """Print what became of a volume."""
    if isinstance(result, CryptpilotError):
        explain(result, one.volume)
    else:
        say(f"{one.volume}: {result}")


def confirm(question: str) -> bool:
    """Ask on the terminal; True for yes. Raises CryptpilotError when there is none."""
    if not sys.stdin.isatty():
        raise CryptpilotError("there is no terminal to ask for confirmation on", "give --yes if you are sure")
    # not on standard output, which may be a file
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def report_aside(one: Volume, result: Result) -> None:
    """Print what became of a volume to standard error, for a command whose output is something else."""
    if isinstance(result, CryptpilotError):
        explain(result, one.volume)
    else:
        complain(f"{one.volume}: {result}")


def is_shown() -> bool:
    """Tell whether a person looks at standard output."""
    return sys.stdout.isatty()


def asks() -> bool:
    """Tell whether a person is at standard input."""
    return sys.stdin.isatty()


def read_secret_line(prompt: str) -> bytearray:
    """Read a line from the terminal without showing it, or from standard input when that is none; its caller wipes it.

    Raises CryptpilotError when there is none, or one that is too long.
    """
    with _hidden(prompt):
        line = bytearray()
        # byte by byte: what comes after the line is somebody else's
        while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
            line += byte
            if len(line) > _LONGEST_SECRET:
                raise CryptpilotError(f"the line that was read is longer than {_LONGEST_SECRET} characters")
    if not line.strip():
        raise CryptpilotError("nothing was typed")
    return line


@contextmanager
def _hidden(prompt: str) -> Iterator[None]:
    """Have the terminal not show what is typed."""
    terminal = sys.stdin.fileno()
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(terminal)
    try:
        termios.tcsetattr(terminal, termios.TCSADRAIN, [*before[:3], before[3] & ~termios.ECHO, *before[4:]])
        # only now, or somebody quick would see what he types
        sys.stderr.write(prompt)
        sys.stderr.flush()
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        sys.stderr.write("\n")


def colored() -> bool:
    """Tell whether standard output is a terminal that shows colors; see no-color.org."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def paint(text: str, color: str) -> str:
    """Return text in a color (a key of the table above)."""
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def width() -> int:
    """Return how many characters a line of standard output may have: as many as the terminal's, else 72."""
    return shutil.get_terminal_size((_WIDTH, 0)).columns if sys.stdout.isatty() else _WIDTH


@contextmanager
def progress() -> Iterator[None]:
    """Show in the last line of the terminal what is at work, if standard error is one."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    work = _Work()
    log.subscribe(work.take)
    ended = threading.Event()

    def keep_showing() -> None:
        while not ended.wait(_TICK):
            _set_status(work.describe())

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _set_status("")


class _Work:
    """The steps at work: what, since when, on which device, and how much had been written to that when it began."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[str, float, str, int]] = {}
        self._lock = threading.Lock()

    def take(self, event: Event) -> None:
        """Take an event in."""
        with self._lock:
            if event.phase == "begin" and event.step in _STEPS:
                device = str(event.facts.get("device", ""))
                self._steps[event.volume] = (_STEPS[event.step], time.monotonic(), device, block.bytes_written(device))
            elif event.phase in ("end", "fail"):
                self._steps.pop(event.volume, None)

    def describe(self) -> str:
        """Say it in one line; "" when there is nothing that takes its time."""
        with self._lock:
            steps = dict(self._steps)
        parts = []
        for volume, (what, since, device, before) in steps.items():
            seconds = time.monotonic() - since
            written = block.bytes_written(device) - before
            so_far = f", {block.readable(written)} written" if written >> 20 else ""
            if seconds >= _SILENT_FOR:
                parts.append(f"{volume}: {what}, {seconds:.0f} s{so_far}")
        return "; ".join(parts)


def _set_status(line: str) -> None:
    """Put a line below what was said; "" for none."""
    global _status
    with _speaking:
        if not line and not _status:
            return
        width = shutil.get_terminal_size().columns
        _status = line[: width - 1]
        sys.stderr.write(_CLEAR_LINE + _status)
        sys.stderr.flush()


def _write(stream: IO[str], line: str) -> None:
    # one write: the lines of parallel volumes do not mix; flushed: the console shows it now, not at the end
    with _speaking:
        if _status:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
        stream.write(f"{line}\n")
        stream.flush()
        if _status:
            sys.stderr.write(_status)
            sys.stderr.flush()

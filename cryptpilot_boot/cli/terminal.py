"""Talking to the person: lines, colors, questions, and what is at work just now."""

from __future__ import annotations

import io
import os
import re
import sys
import termios
import threading
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from cryptpilot_boot.cli.outlet import Outlet
from cryptpilot_boot.cli.work import Work
from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cryptpilot_boot.commands.each import Result
    from cryptpilot_boot.config import Volume

_COLORS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36"}  # ECMA-48, 8.3.117
_CLEAR_LINE = "\r\x1b[K"
_WIDTH = 72  # characters, where no terminal says otherwise
_NARROW = 80  # of a terminal that does not say
_NO_TEXT = re.compile("[\udc80-\udcff]")  # as os.fsdecode has them
_TICK = 0.5  # seconds
_LONGEST_SECRET = 1024
_FAREWELL = 3.0  # seconds a console has, in the end or before a boot stops, to take what was said

_speaking = threading.RLock()
_status = ""
_outlet: Outlet | None = None
_untold: OSError | None = None
_closed: set[str] = set()  # streams that were closed when this process began


def require_streams() -> None:
    """Have three standard streams, that take every character.

    Put /dev/null where one was closed, so that no other file takes its number. Escape what the encoding of the terminal
    lacks: that a line cannot be shown as it is changes nothing about what it tells of.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _closed.add(name)
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def unhurried() -> Iterator[None]:
    """Have nothing that is said fail or wait for the console, whatever becomes of it there; for what runs at boot."""
    global _outlet
    _outlet = Outlet()
    try:
        yield
    finally:
        settle()
        _outlet = None


def settle() -> None:
    """Give the console a moment to take what was said."""
    if _outlet:
        _outlet.settle(_FAREWELL)


class CannotSay(OSError):
    """Standard output does not take what is written to it, though somebody is there to read it."""


def require_output(what: str) -> None:
    """Raise CryptpilotError where standard output would take nothing that is said. what: would be printed there."""
    why = "it is closed" if "stdout" in _closed else ""
    if not why:
        try:
            os.write(sys.stdout.fileno(), b"")
        except OSError as error:
            why = error.strerror or "unknown error"
    if why:
        raise CryptpilotError(
            f"standard output cannot be written, where {what} would be printed: {why}",
            "nothing was changed; redirect it to where you keep that",
        )


def say(line: str) -> None:
    """Print a line to standard output. Raises BrokenPipeError when its reader has gone, and CannotSay."""
    try:
        _write(sys.stdout, line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotSay(error.errno, error.strerror) from None


def say_all(lines: Iterable[str]) -> None:
    """Print lines as `say` does."""
    for line in lines:
        say(line)


def tell(line: str) -> None:
    """Print a line on something that is done; what else there is to do is done whether it can be written or not.

    In the end, `require_told`.
    """
    global _untold
    try:
        say(line)
    except OSError as error:
        _untold = _untold or error


def require_told() -> None:
    """Raise BrokenPipeError or CannotSay, once, if `tell` could not write some line."""
    global _untold
    error, _untold = _untold, None
    if error:
        raise error


def flush() -> OSError | None:
    """Have standard output take what was printed to it by others; return why it does not."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def say_no_more() -> None:
    """Have nothing written to standard output any more, at interpreter exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(warning: str) -> None:
    """Print a warning as `complain` does."""
    complain(f"warning: {warning}")


def complain(line: str) -> None:
    """Print a line to standard error, if that takes it: there is nowhere else to say that it does not."""
    with suppress(OSError):
        _write(sys.stderr, f"cryptpilot: {plain(line)}")


def plain(line: str) -> str:
    """Return a line without what a terminal obeys: a file's name may hold that, and line breaks.

    Bytes in it that are no text stay; how they are shown is `require_streams`' to say.
    """
    return "".join(char if char.isprintable() or _NO_TEXT.match(char) else " " for char in line)


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
        tell(f"{one.volume}: {result}")


def confirm(question: str) -> bool:
    """Ask on the terminal; True for yes. Raises CryptpilotError when there is none."""
    if not sys.stdin.isatty():
        raise CryptpilotError("there is no terminal to ask for confirmation on", "give --yes if you are sure")
    _ask(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _ask(question: str) -> None:
    """Show a question; not on standard output, which may be a file. Raises CryptpilotError when it cannot be shown."""
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
    except OSError as error:
        raise CryptpilotError(
            f"standard error cannot be written, where a question would be shown: {error.strerror}",
            "nothing was changed; call it from a terminal",
        ) from None


def report_aside(one: Volume, result: Result) -> None:
    """Print what became of a volume to standard error, for a command whose output is something else."""
    if isinstance(result, CryptpilotError):
        explain(result, one.volume)
    else:
        complain(f"{one.volume}: {result}")


def is_shown() -> bool:
    """Tell whether a person looks at standard output."""
    return sys.stdout.isatty()


def has_characters(text: str) -> bool:
    """Tell whether standard output shows each character of a text as it is."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


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
        _ask(prompt)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        with suppress(OSError):  # it is no more than the end of the line
            sys.stderr.write("\n")


def colored() -> bool:
    """Tell whether standard output is a terminal that shows colors; see no-color.org."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def paint(text: str, color: str) -> str:
    """Return text in a color (a key of the table above)."""
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def width() -> int:
    """Return how many characters a line of standard output may have: as many as the terminal's, else 72."""
    return _columns(_WIDTH) if sys.stdout.isatty() else _WIDTH


def _columns(otherwise: int) -> int:
    import shutil  # only terminals need it, and with it come the decompressors

    return shutil.get_terminal_size((otherwise, 0)).columns


@contextmanager
def progress(*, lines: bool = False) -> Iterator[None]:
    """Show in the last line of the terminal what is at work, if standard error is one.

    lines: where it is no terminal, print one line to it for each step that takes longer than a second.
    """
    work = Work()
    shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if not (shown or lines):
        yield
        return
    ended = threading.Event()

    def keep_showing() -> None:
        while not ended.wait(_TICK):
            if shown:
                _set_status(work.describe())
            else:
                _complain_of_all(work.begun())

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _set_status("")


def _complain_of_all(lines: Sequence[str]) -> None:
    for line in lines:
        complain(line)


def _set_status(line: str) -> None:
    """Put a line below what was said; "" for none."""
    global _status
    with _speaking:
        if not line and not _status:
            return
        _status = line[: _columns(_NARROW) - 1]
        _put(_CLEAR_LINE + _status)


def _put(status: str) -> None:
    with suppress(OSError):  # it adorns
        sys.stderr.write(status)
        sys.stderr.flush()


def _write(stream: IO[str], line: str) -> None:
    if _outlet:
        _outlet.put(stream, line)
        return
    # one write: the lines of parallel volumes do not mix; flushed: the console shows it now, not at the end
    with _speaking:
        if _status:
            _put(_CLEAR_LINE)
        stream.write(f"{line}\n")
        stream.flush()
        if _status:
            _put(_status)

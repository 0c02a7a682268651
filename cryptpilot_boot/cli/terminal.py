"""Lines for a person: results, errors, colors, and below them the line that shows the steps at work."""

from __future__ import annotations

import io
import os
import re
import sys
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
_WIDTH = 72  # characters, for output that is not a terminal
_NARROW = 80  # of a terminal that does not tell its width
_NO_TEXT = re.compile("[\udc80-\udcff]")  # as os.fsdecode has them
_TICK = 0.5  # seconds
_FAREWELL = 3.0  # seconds that a console has to take the last lines, in the end or before a boot stops

_speaking = threading.RLock()
_status = ""
_outlet: Outlet | None = None
_untold: OSError | None = None
_closed: set[str] = set()  # streams that were closed when this process began


def require_streams() -> None:
    """Make sure that there are three standard streams, and that they accept every character.

    A closed one becomes /dev/null, so that no other file gets its number. Characters that the encoding of the terminal
    lacks are escaped: a line that cannot be shown as it is must not make a command fail.
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
    """Never fail and never wait because of the console, inside this block. For commands that run at boot."""
    global _outlet
    _outlet = Outlet()
    try:
        yield
    finally:
        settle()
        _outlet = None


def settle() -> None:
    """Give the console a few seconds to take the lines that are queued."""
    if _outlet:
        _outlet.settle(_FAREWELL)


class CannotSay(OSError):
    """Standard output cannot be written, for another reason than a reader that has closed it."""


def require_output(what: str) -> None:
    """Raise CryptpilotError if standard output cannot be written. what: would be printed there."""
    why = "it is closed" if "stdout" in _closed else ""
    if not why:
        try:
            os.write(sys.stdout.fileno(), b"")
        except OSError as error:
            why = error.strerror or "unknown error"
    if why:
        raise CryptpilotError(
            f"standard output cannot be written, where {what} would be printed: {why}",
            "nothing was changed; redirect it to where you keep the key",
        )


def say(line: str) -> None:
    """Print a line to standard output. Raises BrokenPipeError when its reader has closed it, and CannotSay."""
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
    """Print a line about work that is done. A line that cannot be written does not stop the rest of the work.

    Call `require_told` in the end.
    """
    global _untold
    try:
        say(line)
    except OSError as error:
        _untold = _untold or error


def require_told() -> None:
    """Raise BrokenPipeError or CannotSay, once, if `tell` could not write a line."""
    global _untold
    error, _untold = _untold, None
    if error:
        raise error


def flush() -> OSError | None:
    """Flush what others printed to standard output. Return the error if that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def say_no_more() -> None:
    """Send standard output to /dev/null from now on, also what the interpreter writes at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(warning: str) -> None:
    """Print a warning as `complain` does."""
    complain(f"warning: {warning}")


def complain(line: str) -> None:
    """Print a line to standard error. An error is ignored: there is no other place to report it."""
    with suppress(OSError):
        _write(sys.stderr, f"cryptpilot: {plain(line)}")


def plain(line: str) -> str:
    """Return a line without control characters and line breaks, which the name of a file may have.

    Bytes that are not text stay; `require_streams` decides how they are shown.
    """
    return "".join(char if char.isprintable() or _NO_TEXT.match(char) else " " for char in line)


def explain(error: CryptpilotError, subject: str = "") -> None:
    """Print an error, with its subject and what to do next."""
    complain(f"error: {subject}: {error.what}" if subject else f"error: {error.what}")
    if error.hint:
        complain(f"  {error.hint}")


def report(one: Volume, result: Result) -> None:
    """Print the result for a volume."""
    if isinstance(result, CryptpilotError):
        explain(result, one.volume)
    else:
        tell(f"{one.volume}: {result}")


def report_aside(one: Volume, result: Result) -> None:
    """Print the result for a volume to standard error, for a command that prints data to standard output."""
    if isinstance(result, CryptpilotError):
        explain(result, one.volume)
    else:
        complain(f"{one.volume}: {result}")


def is_shown() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout.isatty()


def has_characters(text: str) -> bool:
    """Tell whether standard output can show each character of a text."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def colored() -> bool:
    """Tell whether standard output is a terminal that shows colors; see no-color.org."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def paint(text: str, color: str) -> str:
    """Return text in a color (a key of the table above)."""
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def width() -> int:
    """Return how many characters a line of standard output may have: the width of the terminal, else 72."""
    return _columns(_WIDTH) if sys.stdout.isatty() else _WIDTH


def _columns(otherwise: int) -> int:
    import shutil  # only terminals need it, and with it come the decompressors

    return shutil.get_terminal_size((otherwise, 0)).columns


@contextmanager
def progress(*, lines: bool = False) -> Iterator[None]:
    """Show the steps at work in the last line of the terminal, if standard error is one.

    lines: if it is not a terminal, print one line for each step that takes longer than a second.
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
    """Show this line below all others; "" for none."""
    global _status
    with _speaking:
        if not line and not _status:
            return
        _status = line[: _columns(_NARROW) - 1]
        _put(_CLEAR_LINE + _status)


def _put(status: str) -> None:
    with suppress(OSError):  # it is decoration
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

"""Output to a console that may be blocked: a serial line under flow control, a pipe without a reader, a full disk.

At boot the console belongs to a host that may be hostile. Work on a volume must never wait for it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import IO

_MOST_LINES = 1000
"""Lines kept for a slow console. A boot of ten volumes that all fail prints some two hundred."""


class Outlet:
    """Writes lines in order, on its own thread.

    If there are too many, the oldest are dropped. A line that cannot be written is dropped too.
    """

    def __init__(self) -> None:
        self._lines: deque[tuple[IO[str], str]] = deque(maxlen=_MOST_LINES)
        self._lost = 0
        self._writing = False
        self._changed = threading.Condition()
        # daemon: a thread that is blocked in a write must not keep the process from ending
        threading.Thread(target=self._write_all, daemon=True).start()

    def put(self, stream: IO[str], line: str) -> None:
        """Queue a line, without its newline. Never fails, never waits."""
        with self._changed:
            self._lost += len(self._lines) == _MOST_LINES
            self._lines.append((stream, line))
            self._changed.notify_all()

    def settle(self, seconds: float) -> bool:
        """Wait until all lines are written, at most so many seconds. Return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, seconds)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                stream, line = self._lines.popleft()
                lost, self._lost = self._lost, 0
                self._writing = True
            if lost:
                _write(stream, f"cryptpilot: {lost} lines were lost: the console did not take them in time")
            _write(stream, line)


def _write(stream: IO[str], line: str) -> None:
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except (OSError, ValueError):
        return  # there is no other place to report it; the event log has the result

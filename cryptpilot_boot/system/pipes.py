"""The pipes of a running program: its standard input is fed, its output taken, until it has ended."""

from __future__ import annotations

import fcntl
import os
import re
import select
import selectors
import struct
import termios
import time
from typing import IO, TYPE_CHECKING, Callable, Protocol, cast

from cryptpilot_boot.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.system.meter import Meter

CHUNK = 65536  # bytes read at once
_LONGEST_QUOTE = 300  # characters

Take = Callable[[int, int], int]
"""Reads at most so many bytes from a descriptor; returns how many, 0 at the end and when nothing further is wanted."""
Feed = Callable[[int], bool]
"""Writes to a descriptor that is ready; False when there is nothing left to write."""


class Watched(Protocol):
    """A running program. ended: whether it has ended, as far as `hear` knows."""

    ended: bool

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to `hear`."""

    def hear(self, wake: int) -> bool:
        """Learn whether the program has ended; True."""

    def raise_if_unwanted(self) -> None:
        """Raise Interrupted if the program has to be ended."""


class Collected:
    """What a program wrote, all of it or the last `keep` bytes. meter: reads it as it comes."""

    def __init__(self, keep: int | None = None, meter: Meter | None = None) -> None:
        self.data = bytearray()
        self._keep = keep
        self._meter = meter

    def take(self, source: int, most: int) -> int:
        """Read what is there, at most so many bytes. Return how many, 0 at the end."""
        chunk = os.read(source, most)
        self.data += chunk
        if self._keep is not None:
            del self.data[: -self._keep]
        if self._meter:
            self._meter.see(chunk)
        return len(chunk)


def feeder(stdin: memoryview) -> Feed:
    """Return what writes these bytes to a pipe, a part each time it is called."""
    left = stdin

    def feed(target: int) -> bool:
        nonlocal left
        try:
            # a pipe that is ready takes this much without blocking
            left = left[os.write(target, left[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            return False  # the program has read all it wants
        return len(left) > 0

    return feed


def is_readable(descriptor: int | None) -> bool:
    """Tell whether there is a descriptor that can be read now."""
    return descriptor is not None and bool(select.select([descriptor], [], [], 0)[0])


def attend(
    program: Watched,
    stdin: tuple[IO[bytes], Feed] | None,
    outputs: Sequence[tuple[IO[bytes], Take]],
    moment: float | None,
    unwanted: int | None,
) -> bool:
    """Carry bytes to and from a program until it has ended. Raises Interrupted.

    outputs: its pipes, each with what takes the bytes. moment: of the monotonic clock. unwanted: a descriptor. Returns
    False when that moment came, or that descriptor became readable, before the program ended.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(program, selectors.EVENT_READ, program.hear)
        for pipe, read in outputs:
            selector.register(pipe, selectors.EVENT_READ, lambda source, read=read: read(source, CHUNK) > 0)
        if stdin:
            selector.register(stdin[0], selectors.EVENT_WRITE, stdin[1])
        if unwanted is not None:
            selector.register(unwanted, selectors.EVENT_READ, lambda _: True)
        while not program.ended:
            program.raise_if_unwanted()
            left = None if moment is None else moment - time.monotonic()
            if (left is not None and left <= 0) or is_readable(unwanted):
                return False
            for key, _ in selector.select(left):
                if not key.data(key.fd):
                    selector.unregister(key.fileobj)
                    cast("IO[bytes]", key.fileobj).close()
    for pipe, read in outputs:
        if not pipe.closed:
            _drain(pipe.fileno(), read)
    return True


def _drain(source: int, take: Take) -> None:
    """Take what is in a pipe now, and nothing that is written to it meanwhile."""
    (left,) = struct.unpack("i", fcntl.ioctl(source, termios.FIONREAD, bytes(4)))
    while left > 0 and (count := take(source, left)):
        left -= count


def tail(output: str) -> str:
    """Return the last lines that a program wrote, as one line that is safe for a console; "" for nothing.

    What it overwrote on a terminal, such as its progress, is left out.
    """
    lines = [line.strip() for line in re.sub(r"[^\n]*\x08", "", output).splitlines() if line.strip()]
    text = printable("; ".join(lines[-3:]))
    return text if len(text) <= _LONGEST_QUOTE else f"...{text[-_LONGEST_QUOTE:]}"

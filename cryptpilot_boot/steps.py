"""What is being done to each volume at this moment.

Decisions go by this table; the log only tells of it. `log.timed` keeps it, and so it has every step there is.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FETCH_KEY = "fetch-key"
"""The step in which a key provider is asked: nothing is open yet, and it may last until the deadline."""
PROMPT = "prompt"
"""The step in which a person is asked for a key on the console, beside the key provider."""

# Steps in words, as they stand before the name of a device.
_WORDS = {
    "prepare": "preparing",
    "wait-device": "waiting for",
    "probe": "reading",
    FETCH_KEY: "asking for the key",
    PROMPT: "asking for the key on the console",
    "verify": "trying the key",
    "add-key": "adding a key slot",
    "format": "formatting",
    "makefs": "making the file system",
    "check-fs": "checking the file system",
    "open": "opening",
    "close": "closing",
    "mark": "marking",
    "erase": "erasing",
    "remove-key": "removing old key slots",
    "resize": "growing the volume",
    "grow-fs": "growing the file system",
    "make-image": "dracut makes the image",
    "check-image": "checking the image",
    "read-image": "reading the image",
    "unpack-image": "unpacking the image",
    "copy-fs": "copying the file system to",
    "copy": "copying",
    "install": "installing cryptpilot into the image",
    "boot-loader": "setting up the boot loader",
    "label": "labelling new files",
    "unify": "making the unified kernel image",
    "write-image": "packing the image",
    "shrink": "shrinking the file system on",
    "encrypt": "encrypting",
    "move": "moving the first data of",
}


@dataclasses.dataclass(eq=False)
class Step:
    """A step that has begun and not ended.

    device: which it is done to, "" if that does not matter. since: on the monotonic clock. told: when it was last
    reported. waiting_for: what it said that it waits for, "" if it said nothing. done: how far it is, from 0 to 1, None
    if nothing says that. total: bytes that it will have written to the device, 0 if that is not known. thread: the
    thread that runs it.
    """

    name: str
    volume: str
    device: str
    since: float
    told: float
    waiting_for: str = ""
    done: float | None = None
    total: int = 0
    thread: int = dataclasses.field(default_factory=threading.get_ident)

    @property
    def words(self) -> str:
        """Return what is being done, and to which object."""
        return " ".join(filter(None, (_WORDS.get(self.name, f"at work: {self.name}"), self.device)))

    @property
    def seconds(self) -> float:
        """Return how long it has lasted."""
        return time.monotonic() - self.since


_at_work: list[Step] = []  # what was begun last stands last
_lock = threading.Lock()


@contextmanager
def at_work(name: str, volume: str, device: str = "") -> Iterator[None]:
    """Have a step stand in the table while a `with` block runs."""
    now = time.monotonic()
    step = Step(name, volume, device, now, now)
    with _lock:
        _at_work.append(step)
    try:
        yield
    finally:
        with _lock:
            _at_work.remove(step)


def current(volume: str) -> Step | None:
    """Return the step a volume is in, the innermost if one is part of another; None between two."""
    with _lock:
        return next((step for step in reversed(_at_work) if step.volume == volume), None)


def innermost() -> list[Step]:
    """Return for each volume the step it is in."""
    with _lock:
        return list({step.volume: step for step in _at_work}.values())


def advance(done: float) -> None:
    """Note how far the step is that this thread is at work on, from 0 to 1."""
    step = _own()
    if step:
        step.done = done


def expect(total: int) -> None:
    """Note how many bytes the step that this thread is at work on will have written to its device."""
    step = _own()
    if step:
        step.total = total


def _own() -> Step | None:
    with _lock:
        return next((step for step in reversed(_at_work) if step.thread == threading.get_ident()), None)


def wait(name: str, volume: str, waiting_for: str) -> None:
    """Note what a step waits for, and that this was reported just now."""
    with _lock:
        for step in _at_work:
            if (step.name, step.volume) == (name, volume):
                step.waiting_for, step.told = waiting_for, time.monotonic()


def long(seconds: float) -> list[Step]:
    """Return the steps of `innermost` that were not reported for so many seconds. They count as reported now.

    One that tells of its waiting itself is given twice the time, or both would.
    """
    now = time.monotonic()
    found = [step for step in innermost() if now - step.told >= (2 * seconds if step.waiting_for else seconds)]
    for step in found:
        step.told = now
    return found

"""What happens, as a stream of events.

Every room reports its steps here and knows nothing of who listens: the command's console, the boot's console and
the boot's event log subscribe as sinks. An event never holds a secret.
"""

from __future__ import annotations

import dataclasses
import datetime
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that happened.

    boot: seconds since power-on (CLOCK_BOOTTIME: comparable with the kernel's and systemd's own times).
    utc: wall clock, ISO 8601; it may jump, `boot` does not.
    step: what was being done ("fetch the key", see the callers for the words in use).
    phase: one of PHASES.
    volume: the volume's name, or "" for the agent as a whole.
    seconds: duration of the step, for "end" and "fail".
    facts: whatever else a reader wants to know; JSON values only.
    """

    boot: float
    utc: str
    step: str
    phase: str
    volume: str = ""
    seconds: float | None = None
    facts: dict[str, object] = dataclasses.field(default_factory=dict)


PHASES = ("begin", "end", "wait", "fail", "note")
"""Of a step, but for "note": that is a moment."""

FETCH_KEY = "fetch-key"
"""The step in which a key provider is asked: nothing is open yet, and it may last until the deadline."""

Sink = Callable[[Event], None]

_sinks: list[tuple[Sink, Callable[[OSError], object]]] = []
_lock = threading.Lock()


def boot_seconds() -> float:
    """Return the seconds since power-on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def subscribe(sink: Sink, on_failure: Callable[[OSError], object] = lambda _: None) -> None:
    """Have `sink` called with every event from now on; calls never overlap.

    One that raises OSError, as on a disk that is full, is called no more, and `on_failure` is, once: no step fails
    because it cannot be told of.
    """
    with _lock:
        _sinks.append((sink, on_failure))


def latest() -> dict[str, Event]:
    """Return a table of each volume's last event, which is kept up to date from now on."""
    table: dict[str, Event] = {}
    subscribe(lambda event: table.update({event.volume: event}))
    return table


def emit(
    step: str,
    phase: str = "note",
    *,
    volume: str = "",
    seconds: float | None = None,
    facts: dict[str, object] | None = None,
) -> None:
    """Tell every sink that something happened."""
    utc = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    event = Event(round(boot_seconds(), 3), utc, step, phase, volume, seconds, facts or {})
    broken = []
    with _lock:
        for subscription in list(_sinks):
            sink, on_failure = subscription
            try:
                sink(event)
            except OSError as error:
                _sinks.remove(subscription)
                broken.append((on_failure, error))
    for on_failure, failure in broken:
        with suppress(OSError):  # the console may be what is broken
            on_failure(failure)


@contextmanager
def timed(step: str, volume: str = "", **facts: object) -> Iterator[dict[str, object]]:
    """Report the beginning and the end (or the failure) of a step, and how long it took.

    Yields a dict; what the step puts there stands in the facts of its end.
    """
    emit(step, "begin", volume=volume, facts=facts)
    started = time.monotonic()
    found: dict[str, object] = {}
    try:
        yield found
    except CryptpilotError as error:
        emit(step, "fail", volume=volume, seconds=_since(started), facts={**facts, **found, "error": error.what})
        raise
    emit(step, "end", volume=volume, seconds=_since(started), facts={**facts, **found})


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)

"""What happens, as a stream of events.

Every package reports its steps here and does not know the sinks: at boot the console and the event log subscribe. An
event never holds a secret.
"""

from __future__ import annotations

import dataclasses
import datetime
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import steps
from cryptpilot_boot.errors import CryptpilotError, Interrupted, describe_bug

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that happened.

    boot: seconds since power-on (CLOCK_BOOTTIME: comparable with the kernel's and systemd's own times).
    utc: wall clock, ISO 8601; it may jump, `boot` does not.
    step: what was being done, such as "fetch-key"; see `steps` for the words in use.
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


PHASES = ("begin", "end", "wait", "busy", "fail", "note")
"""Of a step, but for "note": that is a moment. "busy": it takes long and goes on, but does not wait."""

FETCH_KEY = steps.FETCH_KEY

Sink = Callable[[Event], None]

_sinks: list[tuple[Sink, Callable[[Exception], object]]] = []
_lock = threading.Lock()


def boot_seconds() -> float:
    """Return the seconds since power-on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def subscribed(sink: Sink, on_failure: Callable[[Exception], object] = lambda _: None) -> Iterator[None]:
    """Have `sink` called with every event while a `with` block runs; calls never overlap.

    A sink that fails, as on a full disk, is not called again. `on_failure` is called once: no step fails because it
    cannot be reported. Nor may one wait: that would delay the step.
    """
    subscription = sink, on_failure
    with _lock:
        _sinks.append(subscription)
    try:
        yield
    finally:
        with _lock:
            if subscription in _sinks:
                _sinks.remove(subscription)


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Do what only tells: its failure is noted in the log, and is no failure of what it tells of.

    For every note, flag file and message by which nothing is decided. what: the note, in words.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        emit("untold", facts={"what": what, "error": reason(error)})


def reason(error: Exception) -> str:
    """Say why something could not be written."""
    if isinstance(error, CryptpilotError):
        return error.what
    return (error.strerror if isinstance(error, OSError) else None) or describe_bug(error)


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
    if phase == "wait":
        steps.wait(step, volume, str(event.facts.get("waiting_for", "")))
    broken = []
    with _lock:
        for subscription in list(_sinks):
            sink, on_failure = subscription
            try:
                sink(event)
            except Exception as error:
                _sinks.remove(subscription)
                broken.append((on_failure, error))
    for on_failure, failure in broken:
        with telling("a part of the log is lost"):  # the console may be what is broken
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
        with steps.at_work(step, volume, str(facts.get("device", ""))):
            yield found
    except CryptpilotError as error:
        emit(step, "fail", volume=volume, seconds=_since(started), facts={**facts, **found, "error": error.what})
        raise
    emit(step, "end", volume=volume, seconds=_since(started), facts={**facts, **found})


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)

"""The steps of a run with their beginning, end and waits, from its events. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import printable
from cryptpilot_boot.report.runs import fact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.log import Event
    from cryptpilot_boot.report.runs import Run

# How a step ended. It is unfinished when the log has its beginning and no end: the agent was killed, or the step hangs.
ENDED = "ended"
FAILED = "failed"
UNFINISHED = "unfinished"

_ALL_WAITING = "wait-device"
_NOTICEABLE = 0.1  # seconds; a device that is there is found in less


@dataclasses.dataclass(frozen=True)
class Pause:
    """A part of a step in which it waited. at: seconds since power-on."""

    at: float
    seconds: float
    waiting_for: str


@dataclasses.dataclass(frozen=True)
class Span:
    """A step of a volume on the timeline.

    at: seconds since power-on. run: see Run. result: ENDED, FAILED or UNFINISHED; an unfinished step lasts to the last
    event of its run. error: why it failed, or "".
    """

    at: float
    seconds: float
    stage: str
    run: int
    volume: str
    step: str
    result: str
    error: str = ""
    waits: tuple[Pause, ...] = ()

    @property
    def end(self) -> float:
        """When it ended, seconds since power-on."""
        return round(self.at + self.seconds, 3)


def spans(run: Run) -> list[Span]:
    """Return the steps of a run in the order in which they began."""
    return sorted(_spans(run), key=lambda span: span.at)


def _spans(run: Run) -> Iterator[Span]:
    begun: dict[tuple[str, str], list[Event]] = {}
    for event in run.events:
        key = (event.volume, event.step)
        if event.phase in ("note", "busy") or event.step == "outcome":
            continue
        if event.phase == "begin":
            if key in begun:
                yield _span(run, begun.pop(key), None, event.boot)
            begun[key] = [event]
        elif event.phase == "wait":
            begun.setdefault(key, []).append(event)
        elif key in begun or event.volume or event.seconds is not None:
            yield _span(run, begun.pop(key, []), event, event.boot)
    for events in begun.values():
        yield _span(run, events, None, run.last)


def _span(run: Run, events: Sequence[Event], end: Event | None, until: float) -> Span:
    """Return a step. events: its beginning and its waits. end: its end, if the log has one. until: when it was over."""
    known = [*events, end] if end else events
    begin = events[0].boot if events else max(0.0, until - ((end.seconds if end else None) or 0))
    seconds = max(0.0, until - begin) if end is None or end.seconds is None else end.seconds
    result = UNFINISHED if end is None else FAILED if end.phase == "fail" else ENDED
    span = Span(
        at=round(begin, 3),
        seconds=round(seconds, 3),
        stage=run.stage,
        run=run.number,
        volume=printable(known[0].volume),
        step=printable(known[0].step),
        result=result,
        error=fact(end, "error") if end and result == FAILED else "",
    )
    return dataclasses.replace(span, waits=_waits(span, known))


def _waits(span: Span, events: Sequence[Event]) -> tuple[Pause, ...]:
    """Return when a step waited: for a device from the beginning, for anything else from the event that says so."""
    if span.step == _ALL_WAITING:
        device = next(filter(None, (fact(event, "device") for event in events)), "") or "the device"
        return (Pause(span.at, span.seconds, device),) if span.seconds >= _NOTICEABLE else ()
    said = [event for event in events if event.phase == "wait"]
    # what follows the last wait is an attempt that succeeds, or fails for good; in an unfinished step it is unknown
    ends = (
        [event.boot for event in said[1:]] + [span.end if span.result == UNFINISHED else said[-1].boot] if said else []
    )
    waits: list[Pause] = []
    for event, until in zip(said, ends):
        begin, end = (min(max(moment, span.at), span.end) for moment in (event.boot, until))
        reason = fact(event, "waiting_for")
        if waits and waits[-1].waiting_for == reason:
            begin = waits.pop().at
        waits.append(Pause(begin, round(max(0.0, end - begin), 3), reason))
    return tuple(waits)

"""The event log divided into runs: the events of one process of a stage. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.log import Event
    from cryptpilot_boot.report.eventlog import LoggedEvent


@dataclasses.dataclass(frozen=True)
class Mark:
    """A moment. at: seconds since power-on. stage: "" for a moment of the machine, which is not the agent's."""

    at: float
    name: str
    stage: str = ""
    run: int = 1
    volume: str = ""


@dataclasses.dataclass
class Run:
    """The events of one process of a stage. number: 1 for the process at boot, 2 when its service was restarted, ..."""

    stage: str
    number: int
    events: list[Event] = dataclasses.field(default_factory=list)

    @property
    def has_started(self) -> bool:
        """Whether it did more than report files that cannot be used."""
        return any(event.step != "config" for event in self.events)

    @property
    def is_done(self) -> bool:
        """Whether it ended, and was not killed."""
        return any(event.step == "done" for event in self.events)

    @property
    def last(self) -> float:
        """The time of its last event, seconds since power-on."""
        return max(event.boot for event in self.events)

    def marks(self) -> Iterator[Mark]:
        """Yield its moments."""
        for event in self.events:
            if event.phase == "note":
                yield Mark(event.boot, printable(event.step), self.stage, self.number, printable(event.volume))

    def problems(self) -> Iterator[str]:
        """Yield what failed outside a step: files that cannot be used."""
        for event in self.events:
            if event.phase == "fail" and not event.volume and event.seconds is None:
                yield f"{self.stage}: {fact(event, 'error') or printable(event.step)}"


def divided(logged: Sequence[LoggedEvent]) -> list[Run]:
    """Return the runs of a log. A run begins with the files that it cannot use, or with its start."""
    runs: list[Run] = []
    latest: dict[tuple[str, int], Run] = {}
    for one in logged:
        stage, event = printable(one.stage), one.event
        run = latest.get((stage, one.pid))
        if run is None or (event.step in ("config", "start") and run.has_started):
            number = 1 + sum(other.stage == stage for other in runs)
            latest[stage, one.pid] = run = Run(stage, number)
            runs.append(run)
        run.events.append(event)
    return runs


def fact(event: Event, name: str) -> str:
    """Return a fact of an event as text that is safe for a console; "" if the event lacks it."""
    value = event.facts.get(name)
    return "" if value is None else printable(str(value))

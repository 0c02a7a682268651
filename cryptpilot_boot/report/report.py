"""What a boot did, from its event log: the steps and their waits, and the result of each volume. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.report.results import VolumeResult, results
from cryptpilot_boot.report.runs import Mark, divided
from cryptpilot_boot.report.spans import Span, spans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.report.eventlog import LoggedEvent

_APART = 120.0  # seconds without an event that separate two periods: a service that is restarted days later


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a log says. Steps and marks are in the order in which they began.

    problems: what is wrong with the log, or was with the configuration.
    """

    volumes: tuple[VolumeResult, ...]
    steps: tuple[Span, ...]
    marks: tuple[Mark, ...]
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Period:
    """A part of a report without long gaps. begin, end: of what the agent did in it, seconds since power-on."""

    begin: float
    end: float
    steps: tuple[Span, ...]
    marks: tuple[Mark, ...]


def report(
    logged: Sequence[LoggedEvent], milestones: Mapping[str, float] | None = None, problems: Sequence[str] = ()
) -> Report:
    """Return the report of a log.

    milestones: moments of the machine by name, seconds since power-on. problems: what is already known to be wrong. All
    texts of the result are safe for a console.
    """
    runs = divided(logged)
    by_run = [spans(run) for run in runs]
    marks = [mark for run in runs for mark in run.marks()]
    marks += [Mark(round(at, 3), name) for name, at in (milestones or {}).items()]
    return Report(
        volumes=tuple(results(runs, by_run)),
        steps=tuple(sorted((span for of_run in by_run for span in of_run), key=lambda span: span.at)),
        marks=tuple(sorted(marks, key=lambda mark: mark.at)),
        problems=(*problems, *(problem for run in runs for problem in run.problems())),
    )


def periods(whole: Report) -> list[Period]:
    """Divide a report where nothing happened for long. A mark of the machine goes to the last that begins before it."""
    ours = [mark for mark in whole.marks if mark.stage]
    bounds: list[tuple[float, float]] = []
    for begin, end in sorted([(mark.at, mark.at) for mark in ours] + [(step.at, step.end) for step in whole.steps]):
        if bounds and begin - bounds[-1][1] <= _APART:
            bounds[-1] = (bounds[-1][0], max(bounds[-1][1], end))
        else:
            bounds.append((begin, end))

    def place(at: float) -> int:
        return max((number for number, (begin, _) in enumerate(bounds) if begin <= at), default=0)

    return [
        Period(
            *bound,
            tuple(step for step in whole.steps if place(step.at) == number),
            tuple(mark for mark in whole.marks if place(mark.at) == number),
        )
        for number, bound in enumerate(bounds)
    ]

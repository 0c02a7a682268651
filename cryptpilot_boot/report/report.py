"""What a boot did, made of its event log: the steps and their waits, and what became of each volume. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cryptpilot_boot.log import Event
    from cryptpilot_boot.report.eventlog import Record

# How a step ended. A step is unfinished that began and was never heard of again: the agent was killed, or it hangs.
ENDED = "ended"
FAILED = "failed"
UNFINISHED = "unfinished"

# What became of a volume: the words of the log's "outcome", FAILED and UNFINISHED, and the last where it does not say.
OPENED = "opened"
ALREADY_OPEN = "was open already"
LEFT = "left to the system stage"
UNKNOWN = "unknown"

_ALL_WAITING = "wait-device"
_NOTICEABLE = 0.1  # seconds; a device that is there is found in less
_APART = 120.0  # seconds after which what comes is not of the same story: a service that is restarted days later


@dataclasses.dataclass(frozen=True)
class Wait:
    """A part of a step in which it waited, and what for. at: seconds since power-on, as everywhere here."""

    at: float
    seconds: float
    waiting_for: str


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a volume.

    run: 1 for the stage at boot, 2 when its service was started again, and so on. result: how it ended (see above);
    what is unfinished lasts to the last event of its run. error: why it failed, or "".
    """

    at: float
    seconds: float
    stage: str
    run: int
    volume: str
    step: str
    result: str
    error: str = ""
    waits: tuple[Wait, ...] = ()

    @property
    def end(self) -> float:
        """Return when it ended."""
        return round(self.at + self.seconds, 3)


@dataclasses.dataclass(frozen=True)
class Mark:
    """A moment. stage: "" when it is the machine's, not the agent's."""

    at: float
    name: str
    stage: str = ""
    run: int = 1
    volume: str = ""


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of a volume in a run of a stage.

    result: see above. at: when that was known. needed: whether the boot could not go on without it. error, hint: why it
    is not open, and what to do. before: how it fared in earlier runs, if it was not opened there. rotation_pending: it
    was the previous value of its secret that opened it. ending: what was said of a client key that ends. source: which
    of its sources opened it, where it has several. typed: a key that was typed on the console opened it.
    """

    volume: str
    result: str
    stage: str
    run: int
    at: float
    needed: bool = False
    error: str = ""
    hint: str = ""
    device: str = ""
    provider: str = ""
    endpoint: str = ""
    before: tuple[Fate, ...] = ()
    rotation_pending: bool = False
    ending: str = ""
    source: str = ""
    typed: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a log tells, steps and marks in the order they began.

    problems: what is wrong with the log, or was with the configuration.
    """

    volumes: tuple[Fate, ...]
    steps: tuple[Step, ...]
    marks: tuple[Mark, ...]
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report without long gaps. begin, end: of what the agent did in it."""

    begin: float
    end: float
    steps: tuple[Step, ...]
    marks: tuple[Mark, ...]


def report(
    records: Sequence[Record], milestones: Mapping[str, float] | None = None, problems: Sequence[str] = ()
) -> Report:
    """Make a report of a log's records.

    milestones: moments of the machine, by name. problems: what is known already to be wrong. All texts of the result
    are safe for a console.
    """
    runs = _runs(records)
    by_run = [sorted(_steps(run), key=lambda step: step.at) for run in runs]
    marks = [mark for run in runs for mark in run.marks()]
    marks += [Mark(round(at, 3), name) for name, at in (milestones or {}).items()]
    return Report(
        volumes=tuple(_fates(runs, by_run)),
        steps=tuple(sorted((step for steps in by_run for step in steps), key=lambda step: step.at)),
        marks=tuple(sorted(marks, key=lambda mark: mark.at)),
        problems=(*problems, *(problem for run in runs for problem in run.problems())),
    )


def sections(whole: Report) -> list[Section]:
    """Split a report where nothing happened for long; a machine's own marks go where they fall."""
    ours = [mark for mark in whole.marks if mark.stage]
    spans = sorted([(mark.at, mark.at) for mark in ours] + [(step.at, step.end) for step in whole.steps])
    bounds: list[tuple[float, float]] = []
    for begin, end in spans:
        if bounds and begin - bounds[-1][1] <= _APART:
            bounds[-1] = (bounds[-1][0], max(bounds[-1][1], end))
        else:
            bounds.append((begin, end))

    def place(at: float) -> int:
        return max((number for number, (begin, _) in enumerate(bounds) if begin <= at), default=0)

    return [
        Section(
            *bound,
            tuple(step for step in whole.steps if place(step.at) == number),
            tuple(mark for mark in whole.marks if place(mark.at) == number),
        )
        for number, bound in enumerate(bounds)
    ]


@dataclasses.dataclass
class _Run:
    """The events of one process of a stage."""

    stage: str
    number: int
    events: list[Event] = dataclasses.field(default_factory=list)

    @property
    def has_started(self) -> bool:
        return any(event.step != "config" for event in self.events)

    @property
    def is_done(self) -> bool:
        return any(event.step == "done" for event in self.events)

    @property
    def last(self) -> float:
        return max(event.boot for event in self.events)

    def marks(self) -> Iterator[Mark]:
        for event in self.events:
            if event.phase == "note":
                yield Mark(event.boot, printable(event.step), self.stage, self.number, printable(event.volume))

    def problems(self) -> Iterator[str]:
        """Give what failed and is no step: files that cannot be used."""
        for event in self.events:
            if event.phase == "fail" and not event.volume and event.seconds is None:
                yield f"{self.stage}: {_fact(event, 'error') or printable(event.step)}"


def _runs(records: Sequence[Record]) -> list[_Run]:
    """Tell apart the processes that wrote a log: each begins with the files it cannot use, and its start."""
    runs: list[_Run] = []
    latest: dict[tuple[str, int], _Run] = {}
    for record in records:
        stage, event = printable(record.stage), record.event
        run = latest.get((stage, record.pid))
        if run is None or (event.step in ("config", "start") and run.has_started):
            number = 1 + sum(other.stage == stage for other in runs)
            latest[stage, record.pid] = run = _Run(stage, number)
            runs.append(run)
        run.events.append(event)
    return runs


def _fact(event: Event, name: str) -> str:
    value = event.facts.get(name)
    return "" if value is None else printable(str(value))


def _steps(run: _Run) -> Iterator[Step]:
    begun: dict[tuple[str, str], list[Event]] = {}
    for event in run.events:
        key = (event.volume, event.step)
        if event.phase in ("note", "busy") or event.step == "outcome":
            continue
        if event.phase == "begin":
            if key in begun:
                yield _step(run, begun.pop(key), None, event.boot)
            begun[key] = [event]
        elif event.phase == "wait":
            begun.setdefault(key, []).append(event)
        elif key in begun or event.volume or event.seconds is not None:
            yield _step(run, begun.pop(key, []), event, event.boot)
    for events in begun.values():
        yield _step(run, events, None, run.last)


def _step(run: _Run, events: Sequence[Event], end: Event | None, until: float) -> Step:
    """Make a step of its begin and waits, and of its end if it had one; `until` is when it was over in any case."""
    known = [*events, end] if end else events
    begin = events[0].boot if events else max(0.0, until - ((end.seconds if end else None) or 0))
    seconds = max(0.0, until - begin) if end is None or end.seconds is None else end.seconds
    result = UNFINISHED if end is None else FAILED if end.phase == "fail" else ENDED
    step = Step(
        at=round(begin, 3),
        seconds=round(seconds, 3),
        stage=run.stage,
        run=run.number,
        volume=printable(known[0].volume),
        step=printable(known[0].step),
        result=result,
        error=_fact(end, "error") if end and result == FAILED else "",
    )
    return dataclasses.replace(step, waits=_waits(step, known))


def _waits(step: Step, events: Sequence[Event]) -> tuple[Wait, ...]:
    """Return when a step waited: a device is waited for from the beginning, anything else from when it is said."""
    if step.step == _ALL_WAITING:
        device = next(filter(None, (_fact(event, "device") for event in events)), "") or "the device"
        return (Wait(step.at, step.seconds, device),) if step.seconds >= _NOTICEABLE else ()
    said = [event for event in events if event.phase == "wait"]
    # what comes after the last word is a try that succeeds, or fails for good; or nobody knows
    ends = (
        [event.boot for event in said[1:]] + [step.end if step.result == UNFINISHED else said[-1].boot] if said else []
    )
    waits: list[Wait] = []
    for event, until in zip(said, ends):
        begin, end = (min(max(moment, step.at), step.end) for moment in (event.boot, until))
        reason = _fact(event, "waiting_for")
        if waits and waits[-1].waiting_for == reason:
            begin = waits.pop().at
        waits.append(Wait(begin, round(max(0.0, end - begin), 3), reason))
    return tuple(waits)


def _fates(runs: Sequence[_Run], by_run: Sequence[Sequence[Step]]) -> Iterator[Fate]:
    """Give the last fate of each volume, in the order they are first heard of."""
    found: defaultdict[str, list[Fate]] = defaultdict(list)
    for run, steps in zip(runs, by_run):
        for volume in dict.fromkeys(event.volume for event in run.events if event.volume):
            name = printable(volume)
            was_opened = any(fate.result == OPENED for fate in found[name])
            found[name].append(_fate(run, volume, [step for step in steps if step.volume == name], was_opened))
    for fates in found.values():
        last = fates.pop()
        while last.result == ALREADY_OPEN and any(fate.result == OPENED for fate in fates):
            last = fates.pop()
        before = tuple(fate for fate in fates if fate.result not in (OPENED, ALREADY_OPEN))
        yield dataclasses.replace(last, before=before)


def _fate(run: _Run, volume: str, steps: Sequence[Step], was_opened: bool) -> Fate:
    """Return how a volume fared in a run: what the log says of it, or what its steps tell."""
    events = [event for event in run.events if event.volume == volume]

    def latest(name: str) -> str:
        return next((_fact(event, name) for event in reversed(events) if event.facts.get(name)), "")

    outcome = next((event for event in reversed(events) if event.step == "outcome"), None)
    if outcome is None:
        result, at, error, hint = _by_steps(run, steps, was_opened)
        needed = rotation_pending = typed = False
        ending = source = ""
    else:
        result = _fact(outcome, "result") or (FAILED if outcome.phase == "fail" else OPENED)
        at, error, hint = outcome.boot, _fact(outcome, "error"), _fact(outcome, "hint")
        needed = outcome.facts.get("needed") is True
        rotation_pending = outcome.facts.get("rotation_pending") is True
        ending = _fact(outcome, "ending")
        source = _fact(outcome, "source")
        typed = outcome.facts.get("typed") is True
    return Fate(
        volume=printable(volume),
        result=result,
        stage=run.stage,
        run=run.number,
        at=at,
        needed=needed,
        error=error,
        hint=hint,
        device=latest("device"),
        provider=latest("provider"),
        endpoint=latest("endpoint"),
        rotation_pending=rotation_pending,
        ending=ending,
        source=source,
        typed=typed,
    )


def _by_steps(run: _Run, steps: Sequence[Step], was_opened: bool) -> tuple[str, float, str, str]:
    """Return result, moment, error and hint of a volume whose outcome is not in the log."""
    opened = next((step for step in reversed(steps) if step.step == "open" and step.result == ENDED), None)
    if opened:
        return OPENED, opened.end, "", ""
    failed = next((step for step in reversed(steps) if step.result == FAILED), None)
    if failed:
        return FAILED, failed.end, failed.error, ""
    unfinished = next((step for step in reversed(steps) if step.result == UNFINISHED), None)
    if unfinished or not run.is_done:
        where = f"{unfinished.step} has not ended" if unfinished else "the agent has not ended"
        reason = f"; it waits for: {unfinished.waits[-1].waiting_for}" if unfinished and unfinished.waits else ""
        return UNFINISHED, run.last, where + reason, _HINT_UNFINISHED
    # an agent without outcomes looks whether a volume is open, and what is on its device, in no step
    if was_opened:
        return ALREADY_OPEN, run.last, "", ""
    return UNKNOWN, run.last, "", "see what the agent said: journalctl -b -t cryptpilot"


_HINT_UNFINISHED = (
    "if the agent is no longer running, it was killed: see journalctl -b -t cryptpilot, and dmesg for lack of memory"
)

"""The result of each volume, as the event log reports it or as its steps show it. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import printable
from cryptpilot_boot.report.runs import fact
from cryptpilot_boot.report.spans import ENDED, FAILED, UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.report.runs import Run
    from cryptpilot_boot.report.spans import Span

# The words of the log's "outcome", beside FAILED and UNFINISHED of a step; the last is for a log without an outcome.
OPENED = "opened"
ALREADY_OPEN = "was open already"
LEFT = "left to the system stage"
UNKNOWN = "unknown"

_HINT_UNFINISHED = (
    "if the agent is no longer running, it was killed: see journalctl -b -t cryptpilot, and dmesg for lack of memory"
)


@dataclasses.dataclass(frozen=True)
class VolumeResult:
    """The result of a volume in a run of a stage.

    result: a word, see above. at: when it was known, seconds since power-on. needed: whether the boot could not
    continue without the volume. error, hint: why it is not open, and what to do. before: its results in earlier runs
    that did not open it. rotation_pending: whether the previous value of its secret opened it. ending: what was said of
    a client key that expires. source: the source that opened it, if it has several. typed: whether a key that was typed
    on the console opened it.
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
    before: tuple[VolumeResult, ...] = ()
    rotation_pending: bool = False
    ending: str = ""
    source: str = ""
    typed: bool = False


def results(runs: Sequence[Run], by_run: Sequence[Sequence[Span]]) -> Iterator[VolumeResult]:
    """Yield the last result of each volume, in the order in which the log names the volumes.

    by_run: the steps of each run.
    """
    found: defaultdict[str, list[VolumeResult]] = defaultdict(list)
    for run, spans in zip(runs, by_run):
        for volume in dict.fromkeys(event.volume for event in run.events if event.volume):
            name = printable(volume)
            was_opened = any(one.result == OPENED for one in found[name])
            found[name].append(_result(run, volume, [span for span in spans if span.volume == name], was_opened))
    for of_volume in found.values():
        last = of_volume.pop()
        while last.result == ALREADY_OPEN and any(one.result == OPENED for one in of_volume):
            last = of_volume.pop()
        before = tuple(one for one in of_volume if one.result not in (OPENED, ALREADY_OPEN))
        yield dataclasses.replace(last, before=before)


def _result(run: Run, volume: str, spans: Sequence[Span], was_opened: bool) -> VolumeResult:
    """Return the result of a volume in a run: what the log says of it, or what its steps show."""
    events = [event for event in run.events if event.volume == volume]

    def latest(name: str) -> str:
        return next((fact(event, name) for event in reversed(events) if event.facts.get(name)), "")

    outcome = next((event for event in reversed(events) if event.step == "outcome"), None)
    if outcome is None:
        result, at, error, hint = _by_spans(run, spans, was_opened)
        needed = rotation_pending = typed = False
        ending = source = ""
    else:
        result = fact(outcome, "result") or (FAILED if outcome.phase == "fail" else OPENED)
        at, error, hint = outcome.boot, fact(outcome, "error"), fact(outcome, "hint")
        needed = outcome.facts.get("needed") is True
        rotation_pending = outcome.facts.get("rotation_pending") is True
        ending = fact(outcome, "ending")
        source = fact(outcome, "source")
        typed = outcome.facts.get("typed") is True
    return VolumeResult(
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


def _by_spans(run: Run, spans: Sequence[Span], was_opened: bool) -> tuple[str, float, str, str]:
    """Return result, moment, error and hint of a volume whose outcome is not in the log."""
    opened = next((span for span in reversed(spans) if span.step == "open" and span.result == ENDED), None)
    if opened:
        return OPENED, opened.end, "", ""
    failed = next((span for span in reversed(spans) if span.result == FAILED), None)
    if failed:
        return FAILED, failed.end, failed.error, ""
    unfinished = next((span for span in reversed(spans) if span.result == UNFINISHED), None)
    if unfinished or not run.is_done:
        where = f"{unfinished.step} has not ended" if unfinished else "the agent has not ended"
        reason = f"; it waits for: {unfinished.waits[-1].waiting_for}" if unfinished and unfinished.waits else ""
        return UNFINISHED, run.last, where + reason, _HINT_UNFINISHED
    # an agent of a version without outcomes checks in no step whether a volume is open, and what is on its device
    if was_opened:
        return ALREADY_OPEN, run.last, "", ""
    return UNKNOWN, run.last, "", "see what the agent said: journalctl -b -t cryptpilot"

"""What became of each volume, in words."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from cryptpilot_boot.report import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.report.report import Fate, Report, Step

_SHORTEST_WAIT = 0.1  # seconds that are worth a line
_MOST_WAITS = 5  # lines

_TOLD = {
    report.OPENED: "opened by the {stage} at {at:.3f} s",
    report.ALREADY_OPEN: "was open already when the {stage} came, at {at:.3f} s",
    report.LEFT: "not opened by the {stage}, given up at {at:.3f} s and left to the system stage",
    report.FAILED: "could not be opened by the {stage}, given up at {at:.3f} s",
    report.UNFINISHED: "not opened by the {stage} so far: its log ends at {at:.3f} s",
    report.UNKNOWN: "the log does not say what happened to it in the {stage}, which ended at {at:.3f} s",
}


def short_name(stage: str, run: int) -> str:
    """Return what a stage is called; its runs after the first have a number."""
    return f"{stage} {run}" if run > 1 else stage


def full_name(stage: str, run: int) -> str:
    """Return the same for where there is room."""
    return f"{stage} stage (run {run})" if run > 1 else f"{stage} stage"


def stories(whole: Report) -> list[str]:
    """Return what became of each volume, a line or more each, and what is wrong with log or configuration."""
    lines = []
    for fate in whole.volumes:
        lines += [f"{fate.volume}: {_told(fate)}", *_facts(_details(fate), "  ")]
        steps = [step for step in whole.steps if (step.volume, step.stage, step.run) == (fate.volume, *_where(fate))]
        lines += _facts(_waits(steps), "  ")
        for before in fate.before:
            lines += _facts([("before", _told(before))], "  ")
            lines += _facts([("failed", before.error), ("to do", before.hint)], "    ")
    return [*lines, *(f"problem: {problem}" for problem in whole.problems)]


def _where(fate: Fate) -> tuple[str, int]:
    return fate.stage, fate.run


def _told(fate: Fate) -> str:
    known = _TOLD.get(fate.result, "{result} by the {stage}, at {at:.3f} s")
    told = known.format(result=fate.result, stage=full_name(*_where(fate)), at=fate.at)
    return f"{told}; the boot cannot go on without it" if fate.needed and fate.error else told


def _details(fate: Fate) -> Iterator[tuple[str, str]]:
    """Give what matters to whoever has to mend it, in the words of the console."""
    if fate.error or fate.hint:
        yield "device", fate.device
        yield "provider", fate.provider
        yield "endpoint", fate.endpoint
        yield "failed", fate.error
        yield "to do", fate.hint
    if fate.typed:
        yield "opened by", "a key that was typed on the console"
    if fate.source and not fate.error:
        yield "opened by", f"{fate.source} ({fate.provider})"
    if fate.rotation_pending:
        yield "warning", "the previous value of its secret opened it"
        yield "to do", f"cryptpilot rotate {fate.volume}"
    if fate.ending:
        yield "key", fate.ending


def _waits(steps: list[Step]) -> Iterator[tuple[str, str]]:
    """Give what took noticeable time to wait for, the longest first."""
    total: defaultdict[str, float] = defaultdict(float)
    for step in steps:
        for wait in step.waits:
            total[wait.waiting_for] += wait.seconds
    for reason, seconds in sorted(total.items(), key=lambda item: -item[1])[:_MOST_WAITS]:
        if seconds >= _SHORTEST_WAIT:
            yield "waited", f"{seconds:.1f} s for: {reason}"


def _facts(facts: Iterator[tuple[str, str]] | list[tuple[str, str]], indent: str) -> list[str]:
    return [f"{indent}{name + ':':<10}{value}" for name, value in facts if value]

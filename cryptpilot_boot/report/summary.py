"""The result of each volume in words. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from cryptpilot_boot.report import results, spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.report.report import Report
    from cryptpilot_boot.report.results import VolumeResult
    from cryptpilot_boot.report.spans import Span

_SHORTEST_WAIT = 0.1  # seconds; a shorter wait gets no line
_MOST_WAITS = 5  # lines

_SENTENCES = {
    results.OPENED: "opened by the {stage} at {at:.3f} s",
    results.ALREADY_OPEN: "was open already when the {stage} came, at {at:.3f} s",
    results.LEFT: "not opened by the {stage}, given up at {at:.3f} s and left to the system stage",
    spans.FAILED: "could not be opened by the {stage}, given up at {at:.3f} s",
    spans.UNFINISHED: "not opened by the {stage} so far: its log ends at {at:.3f} s",
    results.UNKNOWN: "the log does not say what happened to it in the {stage}, which ended at {at:.3f} s",
}


def short_name(stage: str, run: int) -> str:
    """Return the name of a stage. Runs after the first have a number."""
    return f"{stage} {run}" if run > 1 else stage


def full_name(stage: str, run: int) -> str:
    """Return the same with the word "stage"."""
    return f"{stage} stage (run {run})" if run > 1 else f"{stage} stage"


def summary(whole: Report) -> list[str]:
    """Return lines about the result of each volume, and about what is wrong with the log or the configuration."""
    lines = []
    for result in whole.volumes:
        lines += [f"{result.volume}: {_sentence(result)}", *_facts(_details(result), "  ")]
        place = (result.volume, *_where(result))
        steps = [step for step in whole.steps if (step.volume, step.stage, step.run) == place]
        lines += _facts(_waits(steps), "  ")
        for before in result.before:
            lines += _facts([("before", _sentence(before))], "  ")
            lines += _facts([("failed", before.error), ("to do", before.hint)], "    ")
    return [*lines, *(f"problem: {problem}" for problem in whole.problems)]


def _where(result: VolumeResult) -> tuple[str, int]:
    return result.stage, result.run


def _sentence(result: VolumeResult) -> str:
    known = _SENTENCES.get(result.result, "{result} by the {stage}, at {at:.3f} s")
    sentence = known.format(result=result.result, stage=full_name(*_where(result)), at=result.at)
    return f"{sentence}; the boot cannot go on without it" if result.needed and result.error else sentence


def _details(result: VolumeResult) -> Iterator[tuple[str, str]]:
    """Yield what helps to repair it, in the words of the console."""
    if result.error or result.hint:
        yield "device", result.device
        yield "provider", result.provider
        yield "endpoint", result.endpoint
        yield "failed", result.error
        yield "to do", result.hint
    if result.typed:
        yield "opened by", "a key that was typed on the console"
    if result.source and not result.error:
        yield "opened by", f"{result.source} ({result.provider})"
    if result.rotation_pending:
        yield "warning", "the previous value of its secret opened it"
        yield "to do", f"cryptpilot rotate {result.volume}"
    if result.ending:
        yield "key", result.ending


def _waits(steps: list[Span]) -> Iterator[tuple[str, str]]:
    """Yield the noticeable waits, the longest first."""
    total: defaultdict[str, float] = defaultdict(float)
    for step in steps:
        for wait in step.waits:
            total[wait.waiting_for] += wait.seconds
    for reason, seconds in sorted(total.items(), key=lambda item: -item[1])[:_MOST_WAITS]:
        if seconds >= _SHORTEST_WAIT:
            yield "waited", f"{seconds:.1f} s for: {reason}"


def _facts(facts: Iterator[tuple[str, str]] | list[tuple[str, str]], indent: str) -> list[str]:
    return [f"{indent}{name + ':':<10}{value}" for name, value in facts if value]

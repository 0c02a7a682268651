"""The steps at work in words: those that take longer than a second, and their progress."""

from __future__ import annotations

from typing import Callable

from cryptpilot_boot import steps
from cryptpilot_boot.system import block

_SILENT_FOR = 1.0  # seconds that a step may take before it is shown


class Work:
    """The steps at work, with the bytes that the device of each had been written when it was first seen.

    innermost: returns the steps.
    """

    def __init__(self, innermost: Callable[[], list[steps.Step]] = steps.innermost) -> None:
        self._innermost = innermost
        self._before: dict[steps.Step, int] = {}
        self._begun: set[tuple[steps.Step, str]] = set()

    def describe(self) -> str:
        """Return one line for all slow steps; "" without one."""
        now = self._innermost()
        known = self._before
        self._before = {step: known[step] if step in known else block.bytes_written(step.device) for step in now}
        return "; ".join(
            _in_full(step, block.bytes_written(step.device) - before)
            for step, before in self._before.items()
            if step.seconds >= _SILENT_FOR
        )

    def begun(self) -> list[str]:
        """Return a line for each step that takes its time, and for each reason why it waits, once."""
        now = [(step, step.waiting_for) for step in self._innermost() if step.seconds >= _SILENT_FOR]
        new = [one for one in now if one not in self._begun]
        self._begun.update(new)
        return [_subject(step) + (f"waiting: {reason}" if reason else step.words) for step, reason in new]


def _in_full(step: steps.Step, written: int) -> str:
    """Return what a step does, and its progress. written: bytes, to its device."""
    done = min(written / step.total, 1.0) if step.done is None and step.total else step.done
    parts = [
        step.words,
        "" if done is None else f"{100 * done:.0f} %",
        f"{step.seconds:.0f} s",
        f"{block.readable(written)} written" if written >> 20 else "",
        f"waiting: {step.waiting_for}" if step.waiting_for else "",
    ]
    return _subject(step) + ", ".join(filter(None, parts))


def _subject(step: steps.Step) -> str:
    return f"{step.volume}: " if step.volume else ""

"""Command lines that a machine of the lab types after it came up, each with what must come of it.

They get in as a disk and out with the report: see `machines/guest/usr/local/sbin/lab-steps`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from tests.lab.disk import Disk
from tests.lab.image import make_archive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STEPS = "steps"
"""Name of the disk they come on."""


@dataclass(frozen=True)
class Outcome:
    """What a command line printed, and how it ended. On a terminal all is in `out`."""

    out: str
    err: str
    status: int


Holds = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Step:
    """A command line, and what must come of it, in words and as a check; its exit status must be `status`.

    With `answer` it is typed on a terminal, and this in reply to its question. user: who types it, "" for the user
    of the whole list.
    """

    says: str
    command: str
    holds: Holds = lambda _: True
    answer: str = ""
    user: str = ""
    status: int = 0

    def check(self, outcome: Outcome) -> None:
        """Fail unless the outcome is what the step says."""
        assert outcome.status == self.status, f"exit status {outcome.status}, not {self.status}"
        assert self.holds(outcome), f"not so: {self.says}"


def steps_disk(work: Path, steps: Sequence[Step], user: str) -> Disk:
    """Make the disk with the steps; `user` types those that name nobody."""
    directory = work / STEPS
    for number, step in enumerate(steps):
        one = directory / f"{number:03}"
        one.mkdir(parents=True)
        (one / "command").write_text(step.command)
        (one / "user").write_text(step.user or user)
        if step.answer:
            (one / "answer").write_text(step.answer)
    return Disk(make_archive(work / f"{STEPS}.tar", directory), STEPS, readonly=True)


def check(steps: Sequence[Step], report: Mapping[str, str]) -> None:
    """Fail at the first step that did not do what it says, and show all up to there as one would have seen it."""
    transcript = ""
    for number, step in enumerate(steps):
        outcome = _outcome(report, number)
        command, _, more = step.command.partition("\n")
        transcript += f"# {step.says}\n$ {command}{' ...' if more else ''}\n{outcome.out}{outcome.err}"
        try:
            step.check(outcome)
        except AssertionError as error:
            raise AssertionError(f"{transcript}\n{error}") from None


def _outcome(report: Mapping[str, str], number: int) -> Outcome:
    name = f"step-{number:03}"
    return Outcome(report[f"{name}.out"], report[f"{name}.err"], int(report[f"{name}.status"]))


def prints(pattern: str) -> Holds:
    """Hold when a regular expression is found in what is printed; ^ and $ are a line's."""
    return lambda outcome: bool(re.search(pattern, outcome.out, re.MULTILINE))

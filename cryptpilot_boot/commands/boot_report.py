"""`cryptpilot boot report`: the timeline of this boot, and what became of each volume."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.report import eventlog
from cryptpilot_boot.report.picture import draw
from cryptpilot_boot.report.report import periods, report
from cryptpilot_boot.report.runs import Mark
from cryptpilot_boot.report.spans import ENDED, FAILED, UNFINISHED, Span
from cryptpilot_boot.report.summary import short_name, summary
from cryptpilot_boot.system import init

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.report.report import Period, Report


def make(log: Path | None) -> Report:
    """Return the report of this boot, or of another machine's log. Raises CryptpilotError without a log."""
    logged, problems = eventlog.read(log or eventlog.PATH)
    # the moments of this machine do not belong to the log of another
    return report(logged, init.milestones() if log is None else None, problems)


def as_json(whole: Report) -> list[str]:
    """Return the lines of one JSON object; see docs/boot.md."""
    return [json.dumps(dataclasses.asdict(whole), indent=2)]


def as_picture(whole: Report, file: Path | None) -> list[str]:
    """Write the picture to a file, whole or not at all; or return its lines. Raises CryptpilotError."""
    lines = draw(whole)
    if file is None:
        return lines
    _write(file, "".join(f"{line}\n" for line in lines))
    return []


def _write(path: Path, text: str) -> None:
    """Put a text into a file for its owner alone, as the log is. What is there already is replaced, if it is a file."""
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise CryptpilotError(f"{path}: is no regular file", "name another, or - for standard output")
        path = path.resolve()  # a symbolic link stays a link
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".cryptpilot-", delete=False) as file:
            try:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(file.name).unlink()
                raise
    except OSError as error:
        raise CryptpilotError(f"{path}: cannot be written: {error.strerror}") from None


LEGEND = "seconds since power-on;  = work  . wait  ! failed  ? not ended  | moment"
_LEAST_BAR = 12  # characters
_LONGEST_NAME = 20
_INKS = {ENDED: "=", FAILED: "!", UNFINISHED: "?"}
_WAITING = "."
_MOMENT = "|"


def as_table(whole: Report, width: int) -> list[str]:
    """Return lines for people: the timeline, `width` characters wide, and below it what became of each volume."""
    lines: list[str] = []
    for period in periods(whole):
        lines += [*_timeline(period, width), ""]
    return [*lines, LEGEND, "", *summary(whole)]


def _timeline(period: Period, width: int) -> list[str]:
    things: list[Span | Mark] = sorted([*period.marks, *period.steps], key=lambda thing: thing.at)
    rows = [["at", "took", "stage", "volume", "step"], *(_cells(thing) for thing in things)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    room = max(_LEAST_BAR, width - sum(widths) - 2 * len(widths))
    bars = ["", *(_bar(thing, period, room) for thing in things)]
    return ["  ".join([*_padded(row, widths), bar]).rstrip() for row, bar in zip(rows, bars)]


def _cells(thing: Span | Mark) -> list[str]:
    took, name = (f"{thing.seconds:.3f}", thing.step) if isinstance(thing, Span) else ("", thing.name)
    volume = thing.volume if len(thing.volume) <= _LONGEST_NAME else f"{thing.volume[: _LONGEST_NAME - 2]}.."
    return [f"{thing.at:.3f}", took, short_name(thing.stage, thing.run), volume, name]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [*map(str.rjust, row[:2], widths[:2]), *map(str.ljust, row[2:], widths[2:])]


def _bar(thing: Span | Mark, period: Period, width: int) -> str:
    span = period.end - period.begin or 1.0

    def column(at: float) -> int:
        return min(width - 1, max(0, int((at - period.begin) / span * width)))

    if isinstance(thing, Mark):
        # what the machine did before and after is not on this scale
        return " " * column(thing.at) + _MOMENT if period.begin <= thing.at <= period.end else ""
    begin, end = column(thing.at), column(thing.end)
    ink = _INKS[thing.result]
    cells = [" "] * begin + [ink] * (end - begin + 1)
    for wait in thing.waits:
        if wait.seconds:
            first, last = column(wait.at), column(wait.at + wait.seconds)
            cells[first : last + 1] = _WAITING * (last - first + 1)
    if thing.result != ENDED:
        cells[-1] = ink
    return "".join(cells)

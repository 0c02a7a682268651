"""The event log of a boot as a timeline: rows for programs, a table with bars for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 40
"""Characters of a bar that spans the whole timeline."""

Row = dict[str, Any]


def timeline(events: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each step that ended and each moment that was noted, in the order they began.

    Row: `at`, seconds since power-on when it began; `seconds`, how long it took (None for a moment); `stage`,
    `volume`, `step`; `failed`.
    """
    rows = [
        {
            "at": round(event["boot"] - (event["seconds"] or 0), 3),
            "seconds": event["seconds"],
            "stage": event["stage"],
            "volume": event["volume"],
            "step": event["step"],
            "failed": event["phase"] == "fail",
        }
        for event in events
        if event["phase"] in ("end", "fail", "note")
    ]
    return sorted(rows, key=lambda row: float(row["at"]))


def table(rows: Sequence[Row]) -> list[str]:
    """Lay a timeline out: when, how long, what, and a bar that shows what overlapped."""
    if not rows:
        return ["(no events)"]
    begin = rows[0]["at"]
    span = max(row["at"] + (row["seconds"] or 0) for row in rows) - begin or 1.0
    lines = [f"{'at':>8} {'took':>8}  {'stage':<7} {'volume':<8} {'step':<12}"]
    for row in rows:
        took = f"{row['seconds']:.3f}" if row["seconds"] is not None else ""
        mark = "!" if row["failed"] else "="
        start = int((row["at"] - begin) / span * WIDTH)
        length = max(1, round((row["seconds"] or 0) / span * WIDTH))
        bar = " " * start + (mark * length if row["seconds"] is not None else "|")
        lines.append(
            f"{row['at']:8.3f} {took:>8}  {row['stage']:<7} {row['volume']:<8} {row['step']:<12} {bar}".rstrip()
        )
    return lines

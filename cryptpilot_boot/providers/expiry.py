"""How soon a credential expires, and how urgent the notice is. Pure.

When a client key expires, every machine that has it fails at its next boot, all from the same day on.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum


class Level(enum.Enum):
    """The urgency of a notice; the value is the first word of its line."""

    NOTE = "note"
    WARNING = "warning"
    URGENT = "URGENT"


# Days before the end from which on a level applies; the last one that applies counts.
_LEVELS = ((180, Level.NOTE), (30, Level.WARNING), (7, Level.URGENT))


@dataclasses.dataclass(frozen=True)
class Notice:
    """A notice of a client key that expires, without the volume's name. over: it has expired, if the clock is right."""

    level: Level
    what: str
    todo: str
    over: bool = False

    def __str__(self) -> str:
        return f"{self.level.value}: {self.what}; {self.todo}"


def notice(end: datetime.datetime | None, now: datetime.datetime) -> Notice | None:
    """Return the notice of a client key that expires at a time; None if that is far away or not known.

    now: the time of the clock. The notice has both dates, so that a wrong clock is recognized.
    """
    if end is None:
        return None
    left = end - now
    level = next((level for days, level in reversed(_LEVELS) if left <= datetime.timedelta(days=days)), None)
    if level is None:
        return None
    if left <= datetime.timedelta(0):
        what = f"its client key ended on {_day(end)} by its own certificate (this machine's clock says {_day(now)})"
        return Notice(level, what, f"exchange it now: {_EXCHANGE}", over=True)
    when = "in less than a day" if left.days == 0 else "in 1 day" if left.days == 1 else f"in {left.days} days"
    what = f"its client key ends on {_day(end)}, {when}; from then on KMS refuses it and the volume does not open"
    return Notice(level, what, f"{_BY_LEVEL[level]}: {_EXCHANGE}")


_EXCHANGE = (
    "create another client key for the same access point, put it into the volume's file, then run cryptpilot config"
    " check and cryptpilot initrd rebuild --all"
)
_BY_LEVEL = {Level.NOTE: "exchange it in time", Level.WARNING: "exchange it soon", Level.URGENT: "exchange it now"}


def _day(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d}"

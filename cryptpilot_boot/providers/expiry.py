"""How near the end of a credential is, and how loudly that is worth saying. Pure.

A client key that ends takes every machine that has it down at its next boot, all on one day.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum


class Level(enum.Enum):
    """How loudly to say it; the value is the word that a line begins with."""

    NOTE = "note"
    WARNING = "warning"
    URGENT = "URGENT"


# From so many days before the end, the last that fits.
_LEVELS = ((180, Level.NOTE), (30, Level.WARNING), (7, Level.URGENT))


@dataclasses.dataclass(frozen=True)
class Notice:
    """What to say of a client key that ends, without the volume's name. over: it has ended, if the clock is right."""

    level: Level
    what: str
    todo: str
    over: bool = False

    def __str__(self) -> str:
        return f"{self.level.value}: {self.what}; {self.todo}"


def notice(end: datetime.datetime | None, now: datetime.datetime) -> Notice | None:
    """Return what to say of a client key that ends at a moment; None while that is far, and where it is not known.

    now: what the clock says. Both dates are told, so that a wrong clock is seen for what it is.
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

"""A program that was run for a key: how it failed, in one sentence. Pure."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptpilot_boot.system.run import Ended

TRY_AGAIN = os.EX_TEMPFAIL
"""The exit status by which a program says that it may succeed later: 75, <sysexits.h>."""
BY_HAND = "see what it does when it is run by hand, in a clean environment (env -i)"


def failure(command: str, ended: Ended, seconds: float) -> str:
    """Say how a program failed, "" for one that succeeded. seconds: what it was given. Quotes nothing of its output."""
    if not ended.in_time:
        return f"{command} was not done within {seconds:.0f} s, and was killed"
    if ended.status < 0:
        return f"{command} was killed by {_name(-ended.status)}"
    return f"{command} failed with exit status {ended.status}" if ended.status else ""


def hint(ended: Ended, most: int) -> str:
    """Say what to do about a program of the configuration that failed. most: the seconds that its table allows."""
    if ended.in_time:
        return BY_HAND
    return f'see what it waits for; it has at most {most} s (the key "timeout" of its table)'


def _name(number: int) -> str:
    """Return the name of a signal, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

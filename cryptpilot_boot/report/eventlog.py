"""The event log: one JSON object a line. Both stages write it, and it is kept across the pivot with /run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.log import PHASES, Event
from cryptpilot_boot.system import private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.log import Sink

PATH = paths.EVENTS

_LONGEST_LOG = 64 << 20  # bytes; an hour of waiting, the longest timeout, makes some hundred kB for each volume
_LONGEST_TIME = 1e9  # seconds: 30 years


@dataclasses.dataclass(frozen=True)
class LoggedEvent:
    """A line of the log: an event, its stage, and the process that wrote it, by its ID (0: the line does not say)."""

    stage: str
    event: Event
    pid: int = 0


def writer(stage: str, path: Path = PATH) -> Sink:
    """Return a sink that appends to the log. Only root may read the log: it names endpoints and secrets."""
    descriptor: int | None = None

    def write(event: Event) -> None:
        nonlocal descriptor
        if descriptor is None:  # only now: if it cannot be opened, the sink fails, and nothing else
            private.directory(path.parent, private.PUBLIC_DIRECTORY)
            descriptor = private.opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        record = {"stage": stage, "pid": os.getpid(), **dataclasses.asdict(event)}
        # one write for each line, so that a reader or a second writer never sees half a line
        line = json.dumps(record, ensure_ascii=False) + "\n"
        os.write(descriptor, line.encode("utf-8", "backslashreplace"))  # the name of a file may not be text

    return write


def read(path: Path = PATH) -> tuple[list[LoggedEvent], list[str]]:
    """Return the events of a log in their order, and a sentence for each thing that is wrong with it.

    Damaged lines are skipped. Raises CryptpilotError when there is no log, or nothing in it can be used.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_LOG + 1)
    except FileNotFoundError:
        raise CryptpilotError(f"{path}: there is no event log", _NOT_WRITTEN) from None
    except OSError as error:
        hint = "run this as root" if isinstance(error, PermissionError) else ""
        raise CryptpilotError(f"{path}: cannot be read: {error.strerror}", hint) from None
    if len(data) > _LONGEST_LOG:
        raise CryptpilotError(f"{path}: is larger than {_LONGEST_LOG >> 20} MiB", "this is no log of a boot")
    if not data.strip():
        raise CryptpilotError(f"{path}: the event log is empty", _NOT_WRITTEN)
    events, damaged = parse(data)
    if not events:
        raise CryptpilotError(f"{path}: no line of it is an event", "see what is in it; the agent writes JSON lines")
    return events, [f"{path}: {_described(damaged)}"] if damaged else []


def parse(data: bytes) -> tuple[list[LoggedEvent], list[int]]:
    """Return the events of a log in their order, and the numbers of damaged lines."""
    events = []
    damaged = []
    for number, line in enumerate(data.split(b"\n"), 1):
        event = _parsed(line)
        if event:
            events.append(event)
        elif line.strip():
            damaged.append(number)
    return events, damaged


_NOT_WRITTEN = (
    "the agent writes it when it runs at boot; see whether it did: journalctl -b -t cryptpilot;"
    " systemctl status cryptpilot.service"
)


def _described(damaged: list[int]) -> str:
    if len(damaged) == 1:
        return f"line {damaged[0]} is damaged and was skipped"
    return f"{len(damaged)} lines are damaged and were skipped, the first of them line {damaged[0]}"


def _parsed(line: bytes) -> LoggedEvent | None:
    """Return the event of a line; None if the line is damaged, or is not an event."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number too long for Python; nested too deeply
        return None
    if not isinstance(value, dict):
        return None
    found = {**_DEFAULTS, **value}
    texts = all(isinstance(found.get(name), str) for name in ("stage", "step", "phase", "volume", "utc"))
    if not texts or not found["step"] or found["phase"] not in PHASES or not isinstance(found["facts"], dict):
        return None
    boot, seconds = _time(found, "boot"), _time(found, "seconds")
    if boot is None or (seconds is None and found["seconds"] is not None):
        return None
    event = Event(boot, found["utc"], found["step"], found["phase"], found["volume"], seconds, found["facts"])
    return LoggedEvent(found["stage"], event, found["pid"] if isinstance(found["pid"], int) else 0)


_DEFAULTS: dict[str, object] = {"utc": "", "volume": "", "seconds": None, "facts": {}, "pid": 0}


def _time(found: Mapping[str, object], name: str) -> float | None:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # an integer may be too long for a float
    return float(value) if 0 <= value <= _LONGEST_TIME and math.isfinite(value) else None

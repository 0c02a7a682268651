"""The event log: one JSON object a line, written by both stages, carried across the pivot with /run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptpilot_boot.log import Event, Sink

PATH = Path("/run/cryptpilot/events.jsonl")


def writer(stage: str, path: Path = PATH) -> Sink:
    """Return a sink that appends to the log. It is readable by root alone: it names endpoints and secrets."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(event: Event) -> None:
        record = {"stage": stage, **dataclasses.asdict(event)}
        # one write a line: a reader or a second writer never sees half of one
        line = json.dumps(record, ensure_ascii=False) + "\n"
        os.write(descriptor, line.encode("utf-8", "backslashreplace"))  # a file's name may be no text

    return write

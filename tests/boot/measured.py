"""What `image measure` computes, and the event log of a TPM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

BANKS = ("sha256", "sha384")


def ask(image: Path, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run `image measure --json`."""
    command = [sys.executable, "-m", "cryptpilot_boot", "image", "measure", str(image), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def measure(image: Path, *, options: Sequence[str] = (), status: int = 0) -> dict[str, Any]:
    """Return what the command computes of an image. status: its exit status."""
    done = ask(image, options)
    assert (done.returncode, done.stderr) == (status, "")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def logged(text: str) -> list[tuple[int, dict[str, str]]]:
    """Read an event log: the register and the digests of each event but the first, which describes the log."""
    raw = bytes.fromhex(text)
    algorithms = {0x0B: ("sha256", 32), 0x0C: ("sha384", 48), 0x04: ("sha1", 20), 0x0D: ("sha512", 64)}

    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    at = 32 + number(28)
    events = []
    while at < len(raw):
        pcr, count = number(at), number(at + 8)
        at += 12
        digests = {}
        for _ in range(count):
            name, size = algorithms[number(at, 2)]
            digests[name] = raw[at + 2 : at + 2 + size].hex()
            at += 2 + size
        at += 4 + number(at)
        events.append((pcr, {bank: digests[bank] for bank in BANKS}))
    return events

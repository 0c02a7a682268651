"""File systems. Uses: mkfs.ext4."""

from __future__ import annotations

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.run import run

# How each file system is made, whatever the device seems to hold.
COMMANDS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
}


def make(kind: str, device: str) -> None:
    """Make a file system of `kind` (a key of COMMANDS) on `device`."""
    if kind not in COMMANDS:
        raise CryptpilotError(f"makefs = {kind!r} is not implemented in this version")
    run([*COMMANDS[kind], device])

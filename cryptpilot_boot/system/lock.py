"""What is worked on by one process at a time: a volume, an image."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path("/run/cryptpilot/lock")


@contextlib.contextmanager
def held(volume: str, directory: Path = DIRECTORY) -> Iterator[None]:
    """Hold a volume's lock; it ends with the process at the latest. See flock(2).

    Raises CryptpilotError when another process holds it: who waits for a key may hold it for long.
    """
    path = directory / volume
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        hint = "run this as root" if isinstance(error, PermissionError) else ""
        raise CryptpilotError(f"{path}: cannot be locked: {error.strerror}", hint) from None
    try:
        hint = f"wait until it is done; see which one it is: fuser --verbose {path}"
        _take(descriptor, CryptpilotError(f"another cryptpilot process is at work on volume {volume}", hint))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file that is to be made anew. Raises CryptpilotError when another process does that already."""
    with path.open("rb") as file:
        _take(file.fileno(), CryptpilotError(f"{path} is being made anew already", "wait until that is done"))
        yield


def _take(descriptor: int, busy: CryptpilotError) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise busy from None

"""What is worked on in one place at a time: a volume, a device, an image."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import private

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path("/run/cryptpilot/lock")
DEVICES = Path("/run/cryptpilot/lock-device")


@contextlib.contextmanager
def held(volume: str, directory: Path = DIRECTORY) -> Iterator[None]:
    """Hold a volume's lock; it ends with the process at the latest. See flock(2).

    Raises CryptpilotError when another process holds it: who waits for a key may hold it for long.
    """
    with _held(directory / volume, f"another cryptpilot process is at work on volume {volume}"):
        yield


@contextlib.contextmanager
def of_device(number: str, path: str, directory: Path = DEVICES) -> Iterator[None]:
    """Hold a device that is formatted, whatever names of it the configuration has.

    number: "major:minor"; path: what the person who reads of it calls it. Raises CryptpilotError when it is held.
    """
    with _held(directory / number, f"{path} is being formatted as another volume"):
        yield


@contextlib.contextmanager
def _held(path: Path, busy: str) -> Iterator[None]:
    try:
        private.directory(path.parent)
        descriptor = private.opened(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        hint = (
            "run this as root" if os.geteuid() else f"see who made it: ls -ld {path.parent.parent} {path.parent} {path}"
        )
        raise CryptpilotError(f"{path}: cannot be locked: {error.strerror}", hint) from None
    try:
        _take(descriptor, CryptpilotError(busy, f"wait until it is done; see which one it is: fuser --verbose {path}"))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file that is to be rebuilt. Raises CryptpilotError when another process does that already."""
    with path.open("rb") as file:
        _take(file.fileno(), CryptpilotError(f"{path} is being rebuilt already", "wait until that is done"))
        yield


def _take(descriptor: int, busy: CryptpilotError) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise busy from None

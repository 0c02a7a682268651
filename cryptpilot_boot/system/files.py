"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cryptpilot_boot.system import private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write a file for its owner alone, in place of the one that may be there; it is on the disk when this returns.

    Its directory is made if need be, also for its owner alone, whatever the umask. Raises OSError; then what was there
    before still is.
    """
    with _draft(path) as (draft, descriptor):
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    sync(path.parent)


def require_replaceable(path: Path) -> None:
    """Raise OSError where `replace` could not write a file."""
    with _draft(path) as (_, descriptor):
        os.close(descriptor)


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[tuple[Path, int]]:
    """Make an empty file beside a path, under a temporary name; it is removed if it still has that name in the end."""
    new = not os.path.lexists(path.parent)
    private.directory(path.parent)
    if new:
        sync(path.parent.parent)
    draft = path.parent / f".{os.urandom(8).hex()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, private.PRIVATE_FILE)
    try:
        os.fchmod(descriptor, private.PRIVATE_FILE)
        yield draft, descriptor
    finally:
        draft.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Wait until a file, a directory or a device is on the disk. Raises OSError.

    A program that only closes its descriptor does not notice a failure; see fsync(2).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

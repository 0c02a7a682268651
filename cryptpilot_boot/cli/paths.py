"""Paths on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from pathlib import Path


def absolute(path: Path) -> Path:
    """Return a path that does not depend on the current directory. Raises CryptpilotError if that is gone."""
    try:
        return path.absolute()
    except FileNotFoundError:
        raise CryptpilotError(
            f"{path}: the current directory does not exist", "change to one that does, or give the full path"
        ) from None

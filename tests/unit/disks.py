"""Ordinary files in the place of disks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.system import block

if TYPE_CHECKING:
    import pytest


def look_up_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file looked up as a disk is."""
    monkeypatch.setattr(
        block, "look_up", lambda path: block.Device(path, path, "1:1", "", Path(path).stat().st_size, "")
    )

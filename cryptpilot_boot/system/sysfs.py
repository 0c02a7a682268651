"""What the kernel says of block devices in /sys."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
"""Bytes; the unit of all sizes in /sys, whatever the disk's own sectors have. Source: Documentation/block/stat.rst."""


def attribute(path: Path) -> str:
    """Return a line of sysfs; "" if the kernel or the driver has none."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return ""
    return "".join(char for char in text if char.isprintable())


def number(device: int) -> str:
    """Return the number of a device as the kernel writes it, "major:minor". device: its number, see stat(2)."""
    return f"{os.major(device)}:{os.minor(device)}"

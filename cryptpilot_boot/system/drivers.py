"""Which kernel modules drive this machine's disks and network cards, as the kernel lists them in /sys."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYS = Path("/sys")


def of_disk(path: str, sys: Path = _SYS) -> set[str]:
    """Return the modules that drive a block device, and all that it lies on; none of what is built into the kernel.

    Empty when there is no such device. sys: where sysfs is mounted.
    """
    try:
        status = Path(path).stat()
    except OSError:
        return set()
    if not stat.S_ISBLK(status.st_mode):
        return set()
    return of_block_device((sys / f"dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve())


def of_block_device(node: Path) -> set[str]:
    """Return the same of a block device's directory in sysfs."""
    found = set(_drivers(node))
    for below in (node / "slaves").glob("*"):
        found |= of_block_device(below.resolve())
    return found


def of_network_cards(sys: Path = _SYS) -> dict[str, set[str]]:
    """Return the modules that drive each network interface that is a device; not those that are made by software."""
    cards = (sys / "class/net").glob("*")
    return {card.name: set(_drivers(card.resolve())) for card in cards if (card / "device").exists()}


def _drivers(node: Path) -> Iterator[str]:
    """Yield the modules of a device's driver, and of the drivers of all buses above it."""
    for one in (node, *node.parents):
        module = one / "driver/module"
        if module.exists():
            yield module.resolve().name

"""How a machine is turned off: what its root was on is closed, and nothing was unpacked from /boot for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab import qemu

GONE_OVER = "Successfully changed into root pivot"
"""What systemd says when it leaves the root for what was kept in memory; until then it cannot close that."""
CLOSED = "All filesystems, swaps, loop devices, MD devices and DM devices detached."
OFF = "Powering off."
# What is in use by something that is unmounted later is tried again: in its first round the root may be.
COMPLAINT = re.compile(r"finalize|not all|cannot|(failed|unable) to (?!unmount )", re.IGNORECASE)


def require_closed(result: qemu.BootResult) -> None:
    """Fail unless systemd has gone over, and closed all there without a complaint."""
    try:
        require_nothing_left(result.console)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{result}") from None


def require_nothing_left(console: str) -> None:
    """Fail unless a console ends so."""
    _, gone_over, after = console.rpartition(GONE_OVER)
    assert gone_over, "systemd did not leave the root"
    said, off, _ = after.partition(OFF)
    assert off, "it was not turned off"
    assert CLOSED in said, "something is open still"
    assert [line for line in said.splitlines() if COMPLAINT.search(line)] == []

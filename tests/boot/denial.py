"""A host that denies a machine something, and sits at its console."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests import machines
from tests.lab import qemu

if TYPE_CHECKING:
    from pathlib import Path

STANDS = 60
"""Seconds for which the message stands before the machine turns itself off."""
SLACK = 20
SHELL = r"Press Enter for maintenance|Give root password|Dropping to debug shell"
KEYS = ("", "\x03", "\x1a", "\x1c", "", "echo $((6 * 7))shell")
"""What is typed: ^C, ^Z and ^\\ among others, and a line that a shell would answer with 42shell."""


def denied(machine: qemu.Machine, log: Path) -> qemu.BootResult:
    """Boot a machine that is denied something, with a person at its console; fail unless it ends without a shell."""
    with qemu.Guest(machine, log) as guest:
        ending = guest.wait(400, until=f"{machines.NO_SHELL}|{SHELL}")
        told = guest.result(ending).check(qemu.Ending.SEEN).seconds
        for line in KEYS:
            guest.type(line)
            guest.wait(2)
        result = guest.result(guest.wait(200))
    assert "42shell" not in result.console, result
    assert not re.search(SHELL, result.console), result
    result.check()
    assert STANDS - SLACK < result.seconds - told < STANDS + SLACK
    return result

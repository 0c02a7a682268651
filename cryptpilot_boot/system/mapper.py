"""The device-mapper of this kernel.

Uses: dmsetup, modprobe.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Collection

_LIVE = "L"  # of a mapping's attributes; dmsetup(8)
CONTROL = Path("/dev/mapper/control")


def require() -> None:
    """Raise CryptpilotError if the kernel has no device-mapper, and no module with it."""
    if _is_there():
        return
    try:
        run(["modprobe", "dm-crypt"])
    except ProgramError as error:
        raise CryptpilotError(
            f"this machine's kernel has no device-mapper: {error.what}",
            "run it where encrypted volumes can be opened, such as in a virtual machine",
        ) from None


def _is_there() -> bool:
    try:
        os.close(os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def remove_empty(names: Collection[str]) -> None:
    """Remove those of these mappings that have no table: their maker was killed before they had one.

    Of such a mapping nothing can be lost; but another one of its name cannot be made, and from Linux 5.15 on neither
    /sys nor /dev shows it. Raises ProgramError.
    """
    if not _is_there():
        return
    _, said = run(["dmsetup", "info", "--columns", "--noheadings", "--separator=/", "-o", "attr,name"])
    for line in said.splitlines():
        attributes, _, name = line.strip().partition("/")
        if name in names and not attributes.startswith(_LIVE):
            run(["dmsetup", "remove", name], finish=True)

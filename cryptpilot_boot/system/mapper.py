"""The device-mapper of this kernel.

Uses: modprobe.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.run import run

_CONTROL = Path("/dev/mapper/control")


def require() -> None:
    """Raise CryptpilotError where the kernel has no device-mapper, and no module with it."""
    try:
        os.close(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        try:
            run(["modprobe", "dm-crypt"])
        except ProgramError as error:
            raise CryptpilotError(
                f"this machine's kernel has no device-mapper: {error.what}",
                "run it where encrypted volumes can be opened, such as in a virtual machine",
            ) from None

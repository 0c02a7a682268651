"""Volumes whose rotation is not finished: they were opened with the previous value of their secret.

The note is written at each open, in the initrd too (/run is kept across the pivot), so that `show` needs no key
provider.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptpilot_boot import log, paths
from cryptpilot_boot.system import private

DIRECTORY = paths.ROTATION_PENDING


def note(volume: str, pending: bool, directory: Path = DIRECTORY) -> None:
    """Note whether the rotation of a volume is pending.

    A failure is ignored, since the volume is open: the next open notes it again.
    """
    with log.telling(f"whether a rotation of {volume} is pending"):
        if pending:
            os.close(private.opened(private.directory(directory) / volume, os.O_WRONLY | os.O_CREAT))
        else:
            (directory / volume).unlink(missing_ok=True)


def is_pending(volume: str, directory: Path = DIRECTORY) -> bool:
    """Tell whether the volume was last opened, or initialized, with what is now the previous value of its secret."""
    return os.path.exists(directory / volume)  # noqa: PTH110 - False as well where only root may look

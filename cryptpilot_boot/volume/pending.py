"""What this machine knows of a rotation that is not done yet: a volume was opened with its secret's previous value.

Written when a volume is opened, in the initrd too (/run is carried across the pivot), so that `show` can tell without
asking anybody.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptpilot_boot import log, paths
from cryptpilot_boot.system import private

DIRECTORY = paths.ROTATION_PENDING


def note(volume: str, pending: bool, directory: Path = DIRECTORY) -> None:
    """Keep for the volume of a name whether its rotation is pending.

    No failure is worth one: a volume that is open is open, and the next opening notes it again.
    """
    with log.telling(f"whether a rotation of {volume} is pending"):
        if pending:
            os.close(private.opened(private.directory(directory) / volume, os.O_WRONLY | os.O_CREAT))
        else:
            (directory / volume).unlink(missing_ok=True)


def is_pending(volume: str, directory: Path = DIRECTORY) -> bool:
    """Tell whether the volume was last opened, or initialized, with what is the previous value of its secret now."""
    return os.path.exists(directory / volume)  # noqa: PTH110 - False as well where only root may look

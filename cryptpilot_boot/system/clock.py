"""The clock of this machine."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

# Written when the image was made; the kernel unpacks it with its time (CONFIG_INITRAMFS_PRESERVE_MTIME).
_MADE_WITH_THE_IMAGE = Path("/usr/lib/cryptpilot/image.json")


def now() -> datetime.datetime:
    """Return what the clock says."""
    return datetime.datetime.now(datetime.timezone.utc)


def set_to(moment: datetime.datetime) -> None:
    """Set the system's clock; not the hardware's, which the time service of the booted system sees to.

    Raises OSError.
    """
    time.clock_settime(time.CLOCK_REALTIME, moment.timestamp())


def image_made() -> datetime.datetime | None:
    """Return when the image was made that this initrd came from: it cannot be earlier now. None where it is unknown."""
    try:
        seconds = _MADE_WITH_THE_IMAGE.stat().st_mtime
    except FileNotFoundError:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)

"""The clock of this machine."""

from __future__ import annotations

import datetime
import json
import os
import time

from cryptpilot_boot import paths
from cryptpilot_boot.errors import CryptpilotError


def now() -> datetime.datetime:
    """Return what the clock says."""
    return datetime.datetime.now(datetime.timezone.utc)


def set_to(moment: datetime.datetime) -> None:
    """Set the system's clock; not the hardware's, which the time service of the booted system sees to.

    Raises OSError.
    """
    time.clock_settime(time.CLOCK_REALTIME, moment.timestamp())


def image_made() -> datetime.datetime | None:
    """Return when the image was made that this initrd came from: it cannot be earlier now.

    None if unknown: in the booted system, and in an image of a version that did not record it. Raises CryptpilotError.
    """
    # The record is measured. The times of the image's files are not: `dracut --reproducible` sets them, and not every
    # kernel keeps them.
    try:
        return datetime.datetime.fromisoformat(json.loads(paths.IMAGE_RECORD.read_text())["made"])
    except (FileNotFoundError, KeyError):
        return None
    except (ValueError, TypeError):
        raise CryptpilotError(
            f"{paths.IMAGE_RECORD} is damaged, and does not say when this image was made",
            "rebuild the image: cryptpilot initrd rebuild",
        ) from None


def for_an_image() -> datetime.datetime:
    """Return the time to write into an image that is made now: SOURCE_DATE_EPOCH of a reproducible one, else now.

    Raises CryptpilotError.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return now().replace(microsecond=0)
    try:
        return datetime.datetime.fromtimestamp(int(given), datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise CryptpilotError(
            "SOURCE_DATE_EPOCH in the environment is not a time", "unset it, or set it to seconds since 1970"
        ) from None


def text(moment: datetime.datetime) -> str:
    """Return a moment as a person is shown it."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")

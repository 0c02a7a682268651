"""How far a program is, as it says itself while it runs: `12 %` in whichever words it has around that."""

from __future__ import annotations

import re

from cryptpilot_boot import steps

# "(1.33/100%)" of qemu-img, "(92%)" of e2image, "10%" of xfs_copy
_PERCENTAGE = re.compile(rb"(\d{1,3}(?:\.\d+)?)(?:/100)?%")
_LONGEST = 16  # bytes of what one write may end in the middle of


class Meter:
    """Reads what a program writes and notes how far the step is that this thread is at work on."""

    def __init__(self) -> None:
        self._last = b""

    def see(self, chunk: bytes) -> None:
        """Read what comes next of a stream; no more than a few bytes of it are kept."""
        text = self._last + chunk
        found = list(_PERCENTAGE.finditer(text))
        if found:
            steps.advance(min(float(found[-1][1]) / 100, 1.0))
            text = text[found[-1].end() :]
        self._last = text[-_LONGEST:]

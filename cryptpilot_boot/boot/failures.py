"""What the system stage has to say of volumes that failed, for the units of each of them to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTORY = Path("/run/cryptpilot/failed")


def record(volume: str, lines: Sequence[str], directory: Path = DIRECTORY) -> None:
    """Keep what is said of a volume that failed; nothing is kept of one that did not."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = directory / volume
    if lines:
        file.write_text("".join(f"{line}\n" for line in lines), errors="backslashreplace")
    else:
        file.unlink(missing_ok=True)

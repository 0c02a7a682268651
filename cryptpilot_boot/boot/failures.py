"""What the system stage has to say of volumes that failed, for the units of each of them to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.system import private
from cryptpilot_boot.units import units

if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTORY = paths.FAILED
# Where the generator has cryptpilot.service want the units of volumes.
WANTED = Path("/run/systemd/generator/cryptpilot.service.wants")


def record(volume: str, lines: Sequence[str], directory: Path = DIRECTORY, wanted: Path = WANTED) -> None:
    """Keep what is said of a volume that failed; nothing is kept of one that did not.

    Nor of one whose unit does not come right after this, as before the first daemon-reload with its file: it would say
    so whenever it is started first, though what failed was mended since.
    """
    file = private.directory(directory) / volume
    if lines and (wanted / units.unit(volume)).is_symlink():
        private.write(file, "".join(f"{line}\n" for line in lines), errors="backslashreplace")
    else:
        file.unlink(missing_ok=True)

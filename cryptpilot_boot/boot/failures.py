"""What the system stage says of volumes that failed. The unit of each volume repeats it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.names import volume_unit
from cryptpilot_boot.system import private

if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTORY = paths.FAILED
# Where the generator puts the units of volumes that cryptpilot.service wants.
WANTED = Path("/run/systemd/generator/cryptpilot.service.wants")


def record(volume: str, lines: Sequence[str], directory: Path = DIRECTORY, wanted: Path = WANTED) -> None:
    """Keep the message about a volume that failed. lines: empty for a volume that did not fail.

    Nothing is kept for a unit that does not start right after this, as before the first daemon-reload with the volume's
    file: started later, it would repeat a failure that may have been repaired since.
    """
    file = private.directory(directory) / volume
    if lines and (wanted / volume_unit(volume)).is_symlink():
        private.write(file, "".join(f"{line}\n" for line in lines), errors="backslashreplace")
    else:
        file.unlink(missing_ok=True)

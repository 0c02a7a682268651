"""File systems of EFI system partitions, in files: nothing is mounted.

Uses: mdir, mcopy (mtools).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from pathlib import Path

_ROOT = "::"
# otherwise it refuses some sizes that mkfs.vfat makes, because of floppy disks; mtools(1)
_ENVIRONMENT = {"MTOOLS_SKIP_CHECK": "1"}


def files(image: Path) -> list[str]:
    """Return the paths of all files, as "/EFI/BOOT/BOOTX64.EFI", sorted. Raises CryptpilotError."""
    try:
        _, text = run(["mdir", "-/", "-b", "-i", str(image), f"{_ROOT}/"], env=_ENVIRONMENT)
    except ProgramError as error:
        if error.hint:  # it could not even be run
            raise
        raise CryptpilotError(
            f"the EFI system partition has no file system that mtools can read: {error.what}"
        ) from None
    paths = [line[len(_ROOT) :] for line in text.splitlines() if line.startswith(_ROOT)]
    return sorted(path for path in paths if not path.endswith("/"))


def copy(image: Path, path: str, target: Path) -> None:
    """Copy a file out. path: as of `files`, in upper or lower case; target: a new file."""
    run(["mcopy", "-n", "-i", str(image), f"{_ROOT}{path}", str(target)], env=_ENVIRONMENT)

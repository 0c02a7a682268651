"""The programs of this machine that a conversion needs: a missing one is an error before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import clone, programs

if TYPE_CHECKING:
    from collections.abc import Mapping

NEEDED: Mapping[str, str] = {
    **dict.fromkeys(("blkid", "mount", "setpriv", "umount", "unshare"), "util-linux"),
    **dict.fromkeys(("chroot", "cp", "dd", "sync"), "coreutils"),
    "cryptsetup": "cryptsetup-bin",
    "dmsetup": "dmsetup",
    "find": "findutils",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
}
"""For every image: the program, and Debian's package of it."""
_NEW_BOOT = "mkfs.ext4"


def require() -> None:
    """Raise CryptpilotError that names all programs that are missing, of those that every image takes."""
    missing = sorted(program for program in NEEDED if not programs.is_there(program))
    if missing:
        packages = sorted({NEEDED[program] for program in missing})
        raise CryptpilotError(
            f"programs are missing: {', '.join(missing)}", f"install what has them, on Debian: {' '.join(packages)}"
        )


def require_for_boot(kind: str, *, new: bool) -> None:
    """Raise CryptpilotError unless the programs for /boot are there. kind: of its file system; new: it is made."""
    missing = clone.missing([kind])
    if new and not programs.is_there(_NEW_BOOT):
        missing = sorted([*missing, _NEW_BOOT])
    if missing:
        raise CryptpilotError(f"programs are missing: {', '.join(missing)}", "install e2fsprogs, for /boot")

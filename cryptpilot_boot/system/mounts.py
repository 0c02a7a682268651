"""Mounts of this process's own: the rest of the system does not see them, and they end with it at the latest.

Uses: mount, umount, setpriv (util-linux). Source: unshare(2), mount_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.run import MORTAL, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["MORTAL", "keep_private", "mounted"]

_CLONE_NEWNS = 0x00020000  # <linux/sched.h>
_MS_REC_PRIVATE = 0x4000 | 1 << 18  # <linux/mount.h>
_LETTING_GO = 10.0  # seconds that programs which were killed may take to let go of a file system
_PAUSE = 0.1


def keep_private() -> None:
    """Hide the mounts that this thread and its programs make from now on from all others.

    Once; there is no way back. Raises CryptpilotError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) == 0:
        return
    code = ctypes.get_errno()
    raise CryptpilotError(
        f"mounts cannot be kept from the rest of the system: {os.strerror(code)}",
        "run this as root, and in a system whose / is a mount point (not in a plain chroot)",
    )


@contextlib.contextmanager
def mounted(source: str, target: Path, kind: str, options: Sequence[str] = ()) -> Iterator[Path]:
    """Mount a file system while a `with` block runs. Raises ProgramError."""
    run(["mount", "-t", kind, *(["-o", ",".join(options)] if options else []), source, str(target)])
    try:
        yield target
    finally:
        _unmount(target)


def _unmount(target: Path) -> None:
    until = time.monotonic() + _LETTING_GO
    while True:
        try:
            # what an interruption kept from being unmounted there goes with it
            run(["umount", "--recursive", str(target)], finish=True)
        except ProgramError:
            if time.monotonic() > until:
                raise
        else:
            return
        time.sleep(_PAUSE)

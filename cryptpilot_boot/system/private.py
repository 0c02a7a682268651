"""Directories and files of this program: modes do not depend on the umask, and no other user has planted them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from cryptpilot_boot import paths

PUBLIC_DIRECTORY = 0o755
PUBLIC_FILE = 0o644
PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600


def directory(path: Path, mode: int = PRIVATE_DIRECTORY) -> Path:
    """Make a directory, and with mode 0755 those above it that are not there; return it.

    One that is there, and all on the way to it from /run/cryptpilot on, is used if it is this user's; where others may
    write to it, that ends. Raises OSError when it cannot be had, or is another user's, or a link.
    """
    for one in (*reversed(path.parents), path):
        is_new = _make(one, mode if one == path else PUBLIC_DIRECTORY)
        if not is_new and (one in (path, paths.RUN) or paths.RUN in one.parents):
            _require_own(one)
    return path


def _require_own(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, f"{path} belongs to user {status.st_uid}")
        if status.st_mode & 0o022:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~0o022)
    finally:
        os.close(descriptor)


def _make(path: Path, mode: int) -> bool:
    """Make one directory; False when there is something of that name."""
    if os.path.lexists(path):
        return False
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:  # another thread or process was faster
        return False
    path.chmod(mode)  # the umask has taken bits away
    return True


def opened(path: Path, flags: int) -> int:
    """Open a file that only this user may read, make it if `flags` say so, and return a descriptor.

    A planted link is not followed, and another user's file is not used. Raises OSError.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    owner = os.fstat(descriptor).st_uid
    if owner not in (0, os.geteuid()):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, f"{path} belongs to user {owner}")
    return descriptor


def write(path: Path, text: str, mode: int = PRIVATE_FILE, *, errors: str = "surrogateescape") -> None:
    """Write a file with this mode. errors: as `str.encode` takes it. Raises OSError."""
    descriptor = opened(path, os.O_WRONLY | os.O_CREAT)
    with open(descriptor, "w", encoding="utf-8", errors=errors) as file:  # noqa: PTH123 - it is open already
        os.fchmod(descriptor, mode)
        os.ftruncate(descriptor, 0)
        file.write(text)

"""Which other users can change the configuration, or a program that it runs.

A user who can write a file of the configuration can run programs as root, by `[encrypt.exec]` or by another device. So
each file, each program, and all directories and links on the way must belong to root or to the user of this process. No
one else may have write permission, as with StrictModes of sshd(8); only root's group may, because of umask 002. With an
ACL, the bits of the group are its mask, so that an ACL shows there too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ConfigError, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_ACL = "system.posix_acl_access"  # acl(5)
_MOST_LINKS = 40  # as the kernel follows; path_resolution(7)


def require(path: Path, own: Collection[Path] = ()) -> None:
    """Raise ConfigError if another user can change what is found at a path.

    own: directories on the way in which no other user may create files either. Elsewhere a sticky bit is enough, as in
    /tmp: it protects the files of others. A missing path is not an error here. Raises OSError if the path cannot be
    examined.
    """
    user = os.geteuid()
    try:
        for step, status, shared in _steps(path):
            if stat.S_ISLNK(status.st_mode) and not shared:
                continue  # a user who can write to the directory can change the target of a link
            if status.st_uid not in (0, user):
                raise ConfigError(
                    f"{_said(path, step)} belongs to user {status.st_uid}, who can change it",
                    f"see what it says, then: chown {user} {printable(str(step))}",
                )
            who = "" if stat.S_ISLNK(status.st_mode) else _writers(step, status)
            if not who:
                continue
            if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and not _is_one_of(own, status):
                continue
            raise ConfigError(
                f"{_said(path, step)} can be changed {who} (mode {stat.S_IMODE(status.st_mode):04o})",
                f"see what it says, then: chmod go-w {printable(str(step))}",
            )
    except (FileNotFoundError, NotADirectoryError):
        return


def _said(path: Path, step: Path) -> str:
    return printable(f"{path}:" if path == step else f"{path}: {step}, on the way to it,")


def _writers(step: Path, status: os.stat_result) -> str:
    """Return who can write to a file or directory, besides its owner, by its mode; "" for root alone."""
    if status.st_mode & stat.S_IWOTH:
        return "by every user"
    if not status.st_mode & stat.S_IWGRP:
        return ""
    if status.st_gid != 0:
        return f"by group {status.st_gid}"
    return "" if _has_no_acl(step) else "through an ACL"


def _has_no_acl(step: Path) -> bool:
    """Tell whether the bits of the group apply to the group alone.

    That is known only if the file system has POSIX ACLs: NFSv4, for instance, applies ACLs that are not shown.
    """
    try:
        os.getxattr(step, _ACL, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return error.errno == errno.ENODATA
        raise
    return False


def _is_one_of(directories: Collection[Path], status: os.stat_result) -> bool:
    """Tell whether a status is that of one of these directories, whatever path or link leads there."""
    return any(one.exists() and os.path.samestat(one.stat(), status) for one in directories)


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Yield all that a path leads through: directories, links, and the target; see path_resolution(7).

    Each with its status, and whether other users can create files beside it.
    """
    todo = deque(part for part in path.absolute().parts if part != "/")
    here = Path("/")
    status = here.lstat()
    yield here, status, False
    links = 0
    while todo:
        part = todo.popleft()
        if part == "..":
            here = here.parent
            continue
        shared = bool(_writers(here, here.lstat()))
        step = here / part
        status = step.lstat()
        yield step, status, shared
        if not stat.S_ISLNK(status.st_mode):
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = step.readlink()
        if target.is_absolute():
            here = Path("/")
        todo.extendleft(part for part in reversed(target.parts) if part != "/")

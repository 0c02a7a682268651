"""Large files, which are written under another name, beside the one that they get once they are whole.

A user who may write to that directory can rename its files: a draft is reached by its descriptor, not by its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import private
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUFFIX = ".cryptpilot-new"
_LOCK = ".lock"
_ATTEMPTS = 16  # each time, another process has ended just now


@dataclasses.dataclass(frozen=True)
class Draft:
    """A file that is being written. path: the name it has meanwhile."""

    path: Path
    descriptor: int

    @property
    def reach(self) -> Path:
        """Return a path for programs that leads to this very file, as long as it is open here."""
        return Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")


def resize(draft: Draft, size: int) -> None:
    """Give a draft its size in bytes; all that is added is zero, and takes no room. Raises CryptpilotError."""
    try:
        os.ftruncate(draft.descriptor, size)
    except OSError as error:
        raise CryptpilotError(
            f"{draft.path.parent}: no file of {readable(size)} can be written there: {error.strerror}",
            "raise the limit (ulimit -f), or write the image to a file system that takes such files",
        ) from None


def require_name(target: Path, purposes: Sequence[str]) -> None:
    """Raise CryptpilotError if the names of drafts beside a path would be too long for its file system."""
    most = os.pathconf(target.parent, "PC_NAME_MAX")
    longest = max(len(os.fsencode(_name(target, purpose).name + _LOCK)) for purpose in purposes)
    if longest > most:
        raise CryptpilotError(
            f"{target}: the name is {longest - most} bytes too long",
            "choose a shorter one: the image has a longer name while it is written",
        )


def is_name_of_draft(path: Path) -> bool:
    """Tell whether a file of this name, links followed, is or may be removed as a draft."""
    # of a link to itself, Path.resolve makes a bug
    return os.path.realpath(path).removesuffix(_LOCK).endswith(SUFFIX)


@contextlib.contextmanager
def opened(target: Path, purpose: str) -> Iterator[Draft]:
    """Give an empty file beside a path, for root alone; in the end it has no such name any more.

    One that was left by a process that was killed is removed. Raises CryptpilotError if a running process has it.
    """
    path = _name(target, purpose)
    lock = path.with_name(path.name + _LOCK)
    guard = _guard(lock, target)
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, private.PRIVATE_FILE)
        try:
            yield Draft(path, descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
    finally:
        os.close(guard)


def remove_leftovers(target: Path, purposes: Sequence[str]) -> None:
    """Remove the files that a killed process left beside a path. Raises CryptpilotError when one is at work."""
    for purpose in purposes:
        path = _name(target, purpose)
        if os.path.lexists(path) or os.path.lexists(path.with_name(path.name + _LOCK)):
            with opened(target, purpose):
                pass


def finish(draft: Draft, target: Path) -> None:
    """Give a draft its name; all of it is on the disk then. Raises CryptpilotError when something has that name."""
    os.fsync(draft.descriptor)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _link(draft, directory, target)
        os.fsync(directory)
    except FileExistsError:
        raise taken(target) from None
    finally:
        os.close(directory)


def _link(draft: Draft, directory: int, target: Path) -> None:
    try:
        # with a directory, or Python has link(2), which does not follow the link that leads to the file
        os.link(draft.reach, target.name, dst_dir_fd=directory)
    except FileExistsError:
        raise
    except OSError:  # a file system on which a file has one name
        if os.path.lexists(target):
            raise FileExistsError from None
        draft.path.rename(target)


def taken(target: Path) -> CryptpilotError:
    """Return the error for a name that exists."""
    return CryptpilotError(f"{target} is there already", "name a new file: none is overwritten")


def _name(target: Path, purpose: str) -> Path:
    return target.with_name(f".{target.name}.{purpose}{SUFFIX}")


def _guard(path: Path, target: Path) -> int:
    """Return a descriptor that holds the file of this name."""
    for _ in range(_ATTEMPTS):
        try:
            descriptor = private.opened(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise CryptpilotError(
                f"{path.parent}: cannot be written: {path.name}: {error.strerror}", "write the image elsewhere"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            break
        if _has_name(descriptor, path):
            return descriptor
        os.close(descriptor)  # the process that held it has removed it
    raise CryptpilotError(f"{target} is being written already", "wait until that is done")


def _has_name(descriptor: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))

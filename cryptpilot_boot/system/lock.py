"""What is worked on in one place at a time: a volume, a device, an image."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import private

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = paths.LOCKS
DEVICES = paths.DEVICE_LOCKS
_CONTROL = Path("/dev/mapper/control")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of <fcntl.h> with 64-bit offsets: type, whence, start, length, pid


@contextlib.contextmanager
def held(volume: str, directory: Path = DIRECTORY, control: Path = _CONTROL) -> Iterator[None]:
    """Hold a volume's lock; it ends with the process at the latest. See flock(2).

    control: the file of the device mapper, in which a lock needs no room.
    Raises CryptpilotError when another process holds it: who waits for a key may hold it for long.
    """
    with _held(directory / volume, control, f"another cryptpilot process is working on volume {volume}"):
        yield


@contextlib.contextmanager
def of_device(number: str, path: str, directory: Path = DEVICES) -> Iterator[None]:
    """Hold a device that is formatted, whatever names of it the configuration has.

    number: "major:minor"; path: its name in messages. Raises CryptpilotError when it is held.
    """
    with _held(directory / number, _CONTROL, f"{path} is being formatted as another volume"):
        yield


@contextlib.contextmanager
def _held(path: Path, control: Path, said: str) -> Iterator[None]:
    busy = CryptpilotError(said, f"wait until it is done; see which one it is: fuser --verbose {path}")
    with contextlib.ExitStack() as locks:
        in_control = _take_place(path, control, busy, locks)
        try:
            private.directory(path.parent)
            descriptor = private.opened(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if not (in_control and error.errno in _NO_ROOM):
                raise _cannot_be_locked(path, error) from None
        else:
            locks.callback(os.close, descriptor)
            _take(descriptor, busy)
        yield


def _take_place(path: Path, control: Path, busy: CryptpilotError, locks: contextlib.ExitStack) -> bool:
    """Lock the byte that stands for a path in a file that needs no room; False where there is no device mapper.

    It is the device mapper's own, which only root opens; see fcntl(2), "Open file description locks".
    """
    try:
        descriptor = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # nothing is opened or formatted without it, which says so itself
    locks.callback(os.close, descriptor)
    place = int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:7], "big")
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
    except BlockingIOError:
        raise busy from None
    return True


def _cannot_be_locked(path: Path, error: OSError) -> CryptpilotError:
    hint = "run this as root" if os.geteuid() else f"see who made it: ls -ld {path.parent.parent} {path.parent} {path}"
    return CryptpilotError(f"{path}: cannot be locked: {error.strerror}", hint)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a file for a rebuild. Raises CryptpilotError when another process does that already."""
    with path.open("rb") as file:
        _take(file.fileno(), CryptpilotError(f"{path} is being rebuilt already", "wait until that is done"))
        yield


def _take(descriptor: int, busy: CryptpilotError) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise busy from None

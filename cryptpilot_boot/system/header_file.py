"""Backups of LUKS2 headers, in files.

Uses: cryptsetup. A backup is the part of a device before the data, byte for byte, key slots and tokens included.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.system import files
from cryptpilot_boot.system.block import readable, write
from cryptpilot_boot.system.luks_header import Header
from cryptpilot_boot.system.run import raise_if_interrupted, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGEST = 256 << 20  # bytes; cryptsetup's own headers take 16 MiB
_CHUNK = 1 << 20
_GIVE = "give a file that cryptpilot header backup wrote"


@contextlib.contextmanager
def saving(device: str, path: Path, size: int) -> Iterator[str]:
    """Write the header of a device to a new file that only its owner may read; it is on the disk when this ends.

    size: bytes of the header. Yields the path of what was written, for the block to see whether it is good; only then
    does it get its name. If the block raises, nothing is left behind. Raises CryptpilotError when there is such a file,
    none can be made, or the device cannot be read.
    """
    raise_if_interrupted()
    if os.path.lexists(path):
        raise _is_there(path)
    # beside its place, under a name that no other run uses: what is removed here is never a file of another run
    draft = path.parent / f".cryptpilot-{os.urandom(8).hex()}"
    try:
        try:
            # not by cryptsetup: SELinux may keep it from writing to a directory of the administrator's
            _copy(device, draft, size)
            files.sync(draft)
            yield str(draft)
            _name(draft, path)
        finally:
            with contextlib.suppress(OSError):  # it has its name by now, or never was there
                draft.unlink()
        files.sync(path.parent)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise CryptpilotError(
            f"{path}: cannot be written: {error.strerror}", "give the name of a file in a writable directory"
        ) from None


def _copy(device: str, draft: Path, size: int) -> None:
    """Copy the first bytes of a device to a new file. Raises OSError for the file, and DeviceError for the device."""
    target = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        for start in range(0, size, _CHUNK):
            write(target, _bytes(device, start, min(_CHUNK, size - start)), start)
    finally:
        os.close(target)


def _bytes(device: str, start: int, size: int) -> bytes:
    try:
        source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(source, size, start)
        finally:
            os.close(source)
    except OSError as error:
        raise DeviceError(f"{device}: cannot be read: {error.strerror}") from None


def _is_there(path: Path) -> CryptpilotError:
    return CryptpilotError(f"{path}: is there already, and no backup is overwritten", "give the name of a new file")


def _name(draft: Path, path: Path) -> None:
    """Give a file its name, unless there is something of that name. Raises FileExistsError then, and OSError."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        # Without hard links, as on a USB stick, the name is taken first: then no other process can have it.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
        try:
            draft.rename(path)
        except BaseException:
            path.unlink()
            raise


def load(path: Path) -> Header:
    """Read a backup into memory; the copy is the caller's to close. Raises CryptpilotError when that is impossible."""
    try:
        # otherwise this would wait for a pipe to which no process writes
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            kind = os.fstat(source).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
                raise CryptpilotError(
                    f"{path}: is not a backup of a header: it is neither file nor block device", _GIVE
                )
            size = os.lseek(source, 0, os.SEEK_END)
            if size > _LARGEST:
                raise CryptpilotError(f"{path}: is not a backup of a header: it has {readable(size)}", _GIVE)
            return _read(source, size)
        finally:
            os.close(source)
    except OSError as error:
        raise CryptpilotError(f"{path}: cannot be read: {error.strerror}", _GIVE) from None


def _read(source: int, size: int) -> Header:
    """Read so many bytes into memory, however many more there may come to be. Raises OSError."""
    header = Header(0)
    try:
        done = 0
        while chunk := os.pread(source, min(_CHUNK, size - done), done):
            write(header.descriptor, chunk, done)
            done += len(chunk)
    except BaseException:
        header.close()
        raise
    return header


def restore(device: str, backup: Header) -> None:
    """Write a backup back to an unused device. Raises ProgramError."""
    raise_if_interrupted()
    run(
        ["cryptsetup", "luksHeaderRestore", "--batch-mode", f"--header-backup-file={backup.path}", device],
        pass_fds=[backup.descriptor],
        finish=True,
    )

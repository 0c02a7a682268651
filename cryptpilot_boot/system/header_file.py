"""Backups of LUKS2 headers, in files.

Uses: cryptsetup. A backup is the part of a device before the data, byte for byte, key slots and tokens included.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.system.luks_header import Header
from cryptpilot_boot.system.run import raise_if_interrupted, run

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 256 << 20  # bytes; cryptsetup's own headers take 16 MiB
_CHUNK = 1 << 20


def save(device: str, path: Path) -> None:
    """Write the header of a device to a new file that only its owner may read; it is on the disk when this returns.

    Raises ProgramError, and CryptpilotError when there is such a file or none can be made.
    """
    raise_if_interrupted()
    if os.path.lexists(path):
        raise CryptpilotError(f"{path}: is there already, and no backup is written over", "give the name of a new file")
    try:
        run(
            ["cryptsetup", "luksHeaderBackup", "--batch-mode", f"--header-backup-file={path}", device],
            finish=True,
        )
        for one in (path, path.parent):
            descriptor = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        remove(path)
        raise CryptpilotError(f"{path}: cannot be written: {error.strerror}") from None
    except BaseException:
        remove(path)  # half of a backup must not be taken for one
        raise


def remove(path: Path) -> None:
    """Remove a file that is no backup, if it is there."""
    with contextlib.suppress(OSError):
        path.unlink()


def load(path: Path) -> Header:
    """Read a backup into memory; the copy is the caller's to close. Raises CryptpilotError when that is impossible."""
    try:
        with path.open("rb", buffering=0) as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            if size > _LARGEST:
                raise CryptpilotError(f"{path}: is no backup of a header: it has {readable(size)}")
            header = Header(size)
            while chunk := source.read(_CHUNK):
                os.write(header.descriptor, chunk)
    except OSError as error:
        raise CryptpilotError(f"{path}: cannot be read: {error.strerror}") from None
    return header


def restore(device: str, backup: Header) -> None:
    """Write a backup back to a device that nobody uses. Raises ProgramError."""
    raise_if_interrupted()
    run(
        ["cryptsetup", "luksHeaderRestore", "--batch-mode", f"--header-backup-file={backup.path}", device],
        pass_fds=[backup.descriptor],
        finish=True,
    )

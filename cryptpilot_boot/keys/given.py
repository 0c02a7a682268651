"""A secret that an administrator has in a file, in place of asking its provider: for where that cannot be reached."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.passphrase import Passphrase, SecretBuffer
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Encrypt

_LONGEST = 8 << 20  # bytes; see providers.execute


def exposure(path: Path) -> str:
    """Say who may read a file with a secret beside its owner; "" for nobody, and for what is no file on a disk."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""  # reading it says so
    if not stat.S_ISREG(mode) or not mode & (stat.S_IRGRP | stat.S_IROTH):
        return ""
    who = "every user" if mode & stat.S_IROTH else "its group"
    return f"{path}: may be read by {who} (mode {stat.S_IMODE(mode):04o}), and holds a secret: chmod 600 {path}"


def from_file(encrypt: Encrypt, path: Path) -> Passphrase:
    """Return what the provider would return if the value of its secret was what stands in a file.

    For KMS that is base64, blanks around it or not; else all bytes count. Raises CryptpilotError.
    """
    with SecretBuffer(_LONGEST) as buffer:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while buffer.fill(descriptor, _LONGEST):
                    pass
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CryptpilotError(f"{path}: cannot be read: {error.strerror}", "name a file with the secret") from None
        value = buffer.reveal()
        if buffer.full or not len(value):
            raise CryptpilotError(f"{path}: {'is too long for a secret' if buffer.full else 'is empty'}")
        try:
            return table.of(encrypt).decode(encrypt, value)
        except KeyFetchError as error:
            raise CryptpilotError(f"{path}: {error.what}", error.hint) from None

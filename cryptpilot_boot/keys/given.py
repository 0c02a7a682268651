"""A secret in a file, used in place of a provider that cannot be reached."""

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
    """Return a warning if users other than its owner can read a file with a secret; "" if not, or if it is no file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""  # reading it reports that
    if not stat.S_ISREG(mode) or not mode & (stat.S_IRGRP | stat.S_IROTH):
        return ""
    who = "every user" if mode & stat.S_IROTH else "its group"
    return f"{path}: may be read by {who} (mode {stat.S_IMODE(mode):04o}), and holds a secret: chmod 600 {path}"


def from_file(encrypt: Encrypt, path: Path) -> Passphrase:
    """Return the passphrase that the provider would return if its secret had the value in a file.

    For KMS the file holds base64, and blanks around it are ignored. For other providers all bytes count. Raises
    CryptpilotError.
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

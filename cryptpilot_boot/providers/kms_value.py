"""The value of a secret as a passphrase, whatever way KMS was asked."""

from __future__ import annotations

import base64
import binascii

from cryptpilot_boot.errors import NoValue
from cryptpilot_boot.passphrase import Passphrase, is_key_material


def decode(value: str, secret_name: str) -> Passphrase:
    """Return the base64-decoded bytes of a value.

    KMS gives out a secret of type binary as base64, so that its content is returned. Raises NoValue if the value is
    empty or not base64.
    """
    hint = "store the output of: head -c 256 /dev/urandom | base64 -w 0"
    if not value.isascii():
        raise NoValue(f'the value of secret "{secret_name}" is not base64 text: it holds other bytes', hint)
    try:
        secret = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise NoValue(f'the value of secret "{secret_name}" is not base64', hint) from None
    if not secret:
        raise NoValue(f'the value of secret "{secret_name}" is empty', hint)
    return Passphrase(secret, strong=is_key_material(secret))

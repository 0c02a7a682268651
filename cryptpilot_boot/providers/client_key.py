"""The client key of an application access point: a private key, and a certificate that says when it ends.

The certificate is KMS's own word on how long it takes the key: see docs/kms.md.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import threading
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.system import libcrypto

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable

    from cryptpilot_boot.providers.kms import Kms


@dataclasses.dataclass(frozen=True)
class ClientKey:
    """A client key that was opened. ends: when KMS stops to take it, None where nothing says so that can be trusted."""

    key_id: str
    private_key: libcrypto.PrivateKey = dataclasses.field(repr=False)
    ends: datetime.datetime | None


_opening = threading.Lock()


def opened(kms: Kms) -> ClientKey:
    """Open the client key of a section, once for all volumes that have the same: it is 30 ms of arithmetic.

    Raises KeyFetchError when it cannot be opened.
    """
    with _opening:
        return _open(kms.client_key, kms.client_key_password)


@functools.lru_cache
def _open(text: str, password: str) -> ClientKey:
    """Open the PKCS#12 here rather than in the SDK, which would need releases with known vulnerabilities."""
    try:
        client_key = json.loads(text)
        # both come from files, whose lines may have been broken, or ended, on the way here
        data = base64.b64decode("".join(client_key["PrivateKeyData"].split()), validate=True)
        key, certificates = libcrypto.open_pkcs12(data, password.rstrip("\r\n").encode())
    except (ValueError, TypeError, KeyError, libcrypto.CryptoError):
        raise KeyFetchError(
            "the client key cannot be opened: client_key is damaged, or client_key_password is not its password",
            "copy both again from the clientKey_****.json and clientKey_****_Password.txt files",
        ) from None
    if key is None or not key.is_rsa:
        raise KeyFetchError(
            "the client key holds no RSA private key",
            "create a client key for the application access point and use its files as they are",
        )
    return ClientKey(client_key["KeyId"], key, _end(certificates))


def _end(certificates: Iterable[libcrypto.Validity]) -> datetime.datetime | None:
    """Return when the key's own certificate ends, if it has one whose two dates make sense.

    Of two that differ, who knows which KMS goes by.
    """
    ends = {one.end for one in certificates if one.begin < one.end}
    return ends.pop() if len(ends) == 1 else None

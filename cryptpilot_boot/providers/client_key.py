"""The client key of an application access point: a private key, and a certificate with its expiry date.

The certificate says how long KMS accepts the key: see docs/kms.md.
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
    """A client key that was opened. ends: when KMS stops accepting it; None if nothing trustworthy says so."""

    key_id: str
    private_key: libcrypto.PrivateKey = dataclasses.field(repr=False)
    ends: datetime.datetime | None


_opening = threading.Lock()


def opened(kms: Kms) -> ClientKey:
    """Open the client key of a source. Volumes with the same key share the result, which takes 30 ms to compute.

    Raises KeyFetchError if it cannot be opened.
    """
    with _opening:
        return _open(kms.client_key, kms.client_key_password)


@functools.lru_cache
def _open(text: str, password: str) -> ClientKey:
    """Open the PKCS#12 here: the SDK would need releases with known vulnerabilities to do it."""
    try:
        client_key = json.loads(text)
        # both are contents of files, and line breaks may have been added on the way
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
    """Return when the key's own certificate expires, None if it has none with plausible dates.

    None too if there are two different dates: it is not known which one KMS uses.
    """
    ends = {one.end for one in certificates if one.begin < one.end}
    return ends.pop() if len(ends) == 1 else None

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

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from cryptpilot_boot.errors import KeyFetchError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable

    from cryptography import x509

    from cryptpilot_boot.config import Kms


@dataclasses.dataclass(frozen=True)
class ClientKey:
    """A client key that was opened. ends: when KMS stops to take it, None where nothing says so that can be trusted."""

    key_id: str
    private_key: rsa.RSAPrivateKey = dataclasses.field(repr=False)
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
        key, certificate, others = pkcs12.load_key_and_certificates(data, password.rstrip("\r\n").encode())
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        # what the library says may quote its input
        raise KeyFetchError(
            "the client key cannot be opened: client_key is damaged, or client_key_password is not its password",
            "copy both again from the clientKey_****.json and clientKey_****_Password.txt files",
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyFetchError(
            "the client key holds no RSA private key",
            "create a client key for the application access point and use its files as they are",
        )
    return ClientKey(client_key["KeyId"], key, _end(key, [*filter(None, [certificate]), *others]))


def _end(key: rsa.RSAPrivateKey, certificates: Iterable[x509.Certificate]) -> datetime.datetime | None:
    """Return when the key's own certificate ends, if there is one, and its two dates make sense.

    Another's certificate says nothing of this key; and of two that differ, who knows which KMS goes by.
    """
    ends = {certificate.not_valid_after_utc for certificate in certificates if _is_of(key, certificate)}
    return ends.pop() if len(ends) == 1 else None


def _is_of(key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> bool:
    try:
        sensible = certificate.not_valid_before_utc < certificate.not_valid_after_utc
        return sensible and certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):  # a date that is none; a key of a kind that is not known
        return False

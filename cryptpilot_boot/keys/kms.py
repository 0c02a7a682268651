"""A secret of an Alibaba Cloud KMS instance, read through its gateway with a client key.

The gateway, its certificate and its request signature: see docs/kms.md.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import ssl
import threading
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from cryptpilot_boot.config.model import PREVIOUS
from cryptpilot_boot.errors import KeyFetchError, NoValue
from cryptpilot_boot.keys import kms_errors, kms_sdk
from cryptpilot_boot.passphrase import Passphrase, is_key_material
from cryptpilot_boot.system import process

if TYPE_CHECKING:
    from cryptpilot_boot.config import Kms
    from cryptpilot_boot.keys.retry import Ask

_CONNECT_TIMEOUT = 5.0  # seconds; inside a VPC an answer takes milliseconds
# One try may not eat the whole budget: a second one may reach a gateway that the first did not.
_LONGEST_TRY = 15.0
_NO_SUCH_VALUE = "Forbidden.ResourceNotFound"  # what the gateway says of a secret that was never rotated, too


class _Signer:
    """Signs requests with a client key; the shape is that of the SDK's own credential client."""

    def __init__(self, key_id: str, private_key: rsa.RSAPrivateKey) -> None:
        self._key_id = key_id
        self._private_key = private_key

    def get_access_key_id(self) -> str:
        return self._key_id

    def get_signature(self, text: str) -> str:
        signature = self._private_key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return "Bearer " + base64.b64encode(signature).decode()


def prepare(kms: Kms) -> Ask:
    """Open the client key and set the SDK up; return what asks the gateway for the secret.

    Raises KeyFetchError when the client key cannot be opened.
    """
    _require_certificates(kms)
    client = kms_sdk.Client(
        kms_sdk.Config(
            protocol="https",
            endpoint=kms.address,
            credential=_signer(kms),
            ca_file_path=process.anonymous_file("kms-ca.pem", kms.kms_cert_pem.encode()),
        )
    )
    request = kms_sdk.GetSecretValueRequest(secret_name=kms.secret_name, version_stage=kms.stage)

    def ask(timeout: float) -> Passphrase:
        options = kms_sdk.RuntimeOptions(
            autoretry=False,  # keys.retry decides
            connect_timeout=int(1000 * min(timeout, _CONNECT_TIMEOUT)),
            read_timeout=int(1000 * min(timeout, _LONGEST_TRY)),
        )
        try:
            answer = client.get_secret_value_with_options(request, options)
        except Exception as error:
            if kms.stage == PREVIOUS and getattr(error, "code", None) == _NO_SUCH_VALUE:
                raise NoValue(f"secret {kms.secret_name} has no previous value") from None
            # Whatever the SDK raises; its text may quote the request, so only what is known to be harmless is kept.
            raise kms_errors.explain(error, kms) from None
        return _decode(answer.secret_data, kms)

    return ask


def _require_certificates(kms: Kms) -> None:
    """Read the CA chain as TLS will, so that what is wrong with it is not blamed on the gateway."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=kms.kms_cert_pem)
    except (ssl.SSLError, ValueError):
        raise KeyFetchError(
            "kms_cert_pem cannot be read as certificates",
            "copy it again from the PrivateKmsCA_kst-******.pem file",
        ) from None


_opening = threading.Lock()


def _signer(kms: Kms) -> _Signer:
    """Open the client key, once for all volumes that have the same: it is 30 ms of arithmetic."""
    with _opening:
        return _open_client_key(kms.client_key, kms.client_key_password)


@functools.lru_cache
def _open_client_key(text: str, password: str) -> _Signer:
    """Open the PKCS#12 here rather than in the SDK, which would need releases with known vulnerabilities."""
    client_key = json.loads(text)
    try:
        data = base64.b64decode(client_key["PrivateKeyData"], validate=True)
        key, _, _ = pkcs12.load_key_and_certificates(data, password.encode())
    except (ValueError, UnsupportedAlgorithm):
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
    return _Signer(client_key["KeyId"], key)


def _decode(value: str, kms: Kms) -> Passphrase:
    """Turn a secret's value into the passphrase: its base64-decoded bytes."""
    hint = "store the output of: head -c 256 /dev/urandom | base64 -w 0"
    try:
        secret = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFetchError(f"the value of secret {kms.secret_name} is not base64", hint) from None
    if not secret:
        raise KeyFetchError(f"the value of secret {kms.secret_name} is empty", hint)
    return Passphrase(secret, strong=is_key_material(secret))

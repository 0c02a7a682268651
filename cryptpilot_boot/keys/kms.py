"""A secret of an Alibaba Cloud KMS instance, read through its gateway with a client key.

The gateway, its certificate and its request signature: see docs/kms.md.
"""

from __future__ import annotations

import base64
import functools
import json
import ssl
import threading
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.keys import clock, kms_sdk, kms_transport, kms_value, limit
from cryptpilot_boot.keys.gateway import Gateway
from cryptpilot_boot.system import certificates, process

if TYPE_CHECKING:
    from cryptpilot_boot.config import Kms
    from cryptpilot_boot.keys.retry import Ask
    from cryptpilot_boot.passphrase import Passphrase


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
    _trust(kms)
    client = kms_sdk.Client(
        kms_sdk.Config(
            protocol="https",
            endpoint=kms.address,
            credential=_signer(kms),
            ca_file_path=process.anonymous_file("kms-ca.pem", kms.kms_cert_pem.encode()),
        )
    )
    request = kms_sdk.GetSecretValueRequest(secret_name=kms.secret_name, version_stage=kms.stage)
    gateway = _gateway(kms)

    def ask_gateway(timeout: float) -> Passphrase:
        options = kms_sdk.RuntimeOptions(
            autoretry=False,  # keys.retry decides
            connect_timeout=int(1000 * min(timeout, limit.CONNECT_TIMEOUT)),
            read_timeout=int(1000 * min(timeout, limit.LONGEST_TRY)),
        )
        try:
            answer = client.get_secret_value_with_options(request, options)
        except Exception as error:
            raise clock.explain(error, gateway, lambda: _trust(kms), timeout) from None
        # nothing at all is a message of this kind, too, and so is an error
        if answer.secret_name != kms.secret_name:
            raise kms_transport.no_answer(gateway)
        return kms_value.decode(answer.secret_data, kms.secret_name)

    def ask(timeout: float) -> Passphrase:
        late = kms_transport.too_slow(gateway)
        return limit.within(limit.of_a_try(timeout), lambda: ask_gateway(timeout), late)

    return ask


def _gateway(kms: Kms) -> Gateway:
    return Gateway(
        address=kms.address,
        secret=kms.secret_name,
        stage=kms.stage,
        certificate=f"kms_cert_pem must be the CA chain of KMS instance {kms.kms_instance_id}: download it again from"
        " the instance's page, and check kms_instance_id and endpoint",
        name="check that the machine is in the VPC of the KMS instance and gets an address and a name server there",
        connection="check the KMS instance's state, the endpoint and its port, and the security groups on the way",
        answer="check that the endpoint is a KMS instance gateway and that no proxy stands between",
        codes=_HINTS,
    )


# by a part of the gateway's error code
_HINTS = (
    ("NoPermission", "give the application access point a policy that allows reading this secret"),
    (
        "Signature",
        "check client_key: the instance does not accept its signature (and check this machine's clock)",
    ),
)


def _trust(kms: Kms) -> ssl.SSLContext:
    return certificates.trusting(kms.kms_cert_pem, "copy it again from the PrivateKmsCA_kst-******.pem file")


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
        # both come from files, whose lines may have been broken, or ended, on the way here
        data = base64.b64decode("".join(client_key["PrivateKeyData"].split()), validate=True)
        key, _, _ = pkcs12.load_key_and_certificates(data, password.rstrip("\r\n").encode())
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

"""A secret of an Alibaba Cloud KMS instance, read through its gateway with a client key.

The gateway, its certificate and its request signature: see docs/kms.md.
"""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING

from cryptpilot_boot.providers import client_key, clock, expiry, kms_sdk, kms_transport, kms_value, limit
from cryptpilot_boot.providers.gateway import Gateway
from cryptpilot_boot.system import certificates, process
from cryptpilot_boot.system import clock as system_clock

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.client_key import ClientKey
    from cryptpilot_boot.providers.kms import Kms
    from cryptpilot_boot.providers.provider import Ask


class _Signer:
    """Signs requests with a client key; has the methods of the SDK's own credential client."""

    def __init__(self, client_key: ClientKey) -> None:
        self._client_key = client_key

    def get_access_key_id(self) -> str:
        return self._client_key.key_id

    def get_signature(self, text: str) -> str:
        signature = self._client_key.private_key.sign(text.encode())
        return "Bearer " + base64.b64encode(signature).decode()


def prepare(kms: Kms) -> Ask:
    """Open the client key and set up the SDK; return what asks the gateway for the secret.

    Raises KeyFetchError if the client key cannot be opened.
    """
    _trust(kms)
    key = client_key.opened(kms)
    client = kms_sdk.Client(
        kms_sdk.Config(
            protocol="https",
            endpoint=kms.address,
            credential=_Signer(key),
            ca_file_path=process.anonymous_file("kms-ca.pem", kms.kms_cert_pem.encode()),
        )
    )
    request = kms_sdk.GetSecretValueRequest(secret_name=kms.secret_name, version_stage=kms.stage)

    def ask_gateway(timeout: float) -> Passphrase:
        gateway = _gateway(kms, key)
        options = kms_sdk.RuntimeOptions(
            autoretry=False,  # keys.retry decides
            connect_timeout=int(1000 * min(timeout, limit.CONNECT_TIMEOUT)),
            read_timeout=int(1000 * min(timeout, limit.LONGEST_TRY)),
        )
        try:
            answer = client.get_secret_value_with_options(request, options)
        except Exception as error:
            raise clock.explain(error, gateway, lambda: _trust(kms), timeout) from None
        # an empty answer, or an error, also parses as this message
        if answer.secret_name != kms.secret_name:
            raise kms_transport.no_answer(gateway)
        return kms_value.decode(answer.secret_data, kms.secret_name)

    def ask(timeout: float) -> Passphrase:
        late = kms_transport.too_slow(_gateway(kms, key))
        return limit.within(limit.of_a_try(timeout), lambda: ask_gateway(timeout), late)

    return ask


def _gateway(kms: Kms, key: ClientKey) -> Gateway:
    ends = expiry.notice(key.ends, system_clock.now())
    return Gateway(
        address=kms.address,
        secret=kms.secret_name,
        stage=kms.stage,
        certificate=f"kms_cert_pem must be the CA chain of KMS instance {kms.kms_instance_id}: download it again from"
        " the instance's page, and check kms_instance_id and endpoint",
        name="check that the machine is in the VPC of the KMS instance and gets an address and a name server there",
        connection="check the KMS instance's state, the endpoint and its port, and the security groups on the way",
        answer="check that the endpoint is a KMS instance gateway and that no proxy stands between",
        # KMS does not say why it no longer knows a key
        codes=((("Unauthorized", f"{ends.what}; {ends.todo}"), *_HINTS) if ends and ends.over else _HINTS),
    )


# Keys: parts of the gateway's error code.
_HINTS = (
    ("NoPermission", "give the application access point a policy that allows reading this secret"),
    (
        "Signature",
        "check client_key: the instance does not accept its signature (and check this machine's clock)",
    ),
)


def _trust(kms: Kms) -> ssl.SSLContext:
    return certificates.trusting(kms.kms_cert_pem, "copy it again from the PrivateKmsCA_kst-******.pem file")

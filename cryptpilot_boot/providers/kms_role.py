"""A secret of Alibaba Cloud KMS, read with the RAM role of this ECS instance.

The shared gateway of the region is asked, or that of the KMS instance: one protocol, two CAs. There are no static
credentials. The metadata service of the instance gives temporary ones, valid for some hours, and each try asks for new
ones. See docs/kms.md.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import clock, kms_openapi, kms_transport, kms_value, limit, metadata
from cryptpilot_boot.providers.gateway import Gateway
from cryptpilot_boot.providers.kms_text import SECRET_ARN
from cryptpilot_boot.system import certificates, process
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.kms import KmsRole
    from cryptpilot_boot.providers.metadata import Credentials
    from cryptpilot_boot.providers.provider import Ask

_LEAST_TIMEOUT = 0.1


@dataclass(frozen=True)
class _Credential:
    """Temporary credentials with the methods of the SDK's credential client, and the fields of its result."""

    credentials: Credentials
    provider_name: str
    type = "sts"

    def get_credential(self) -> _Credential:
        return self

    @property
    def access_key_id(self) -> str:
        return self.credentials.access_key_id

    @property
    def access_key_secret(self) -> str:
        return self.credentials.access_key_secret

    @property
    def security_token(self) -> str:
        return self.credentials.security_token


def prepare(role: KmsRole) -> Ask:
    """Import the SDK and find the trusted CAs; return what asks the gateway for the secret.

    Raises KeyFetchError if there are no CAs.
    """
    authorities = _authorities(role)

    def ask_services(timeout: float) -> Passphrase:
        deadline = Deadline(min(timeout, limit.LONGEST_TRY))
        service = metadata.connect(deadline)
        # the region is needed only to name the host
        region = role.region or ("" if role.host else service.region())
        credentials = service.credentials(role.ecs_ram_role_name)
        return read(credentials, "ecs_ram_role", _gateway(role, region), region, authorities, deadline)

    def ask(timeout: float) -> Passphrase:
        late = KeyFetchError(
            "no complete answer in time from the instance's metadata service or from KMS",
            "see which it is: cryptpilot boot report; check the security groups on the way",
            retryable=True,
        )
        return limit.within(limit.of_a_try(timeout), lambda: ask_services(timeout), late)

    return ask


def read(
    credentials: Credentials, source: str, gateway: Gateway, region: str, authorities: str, deadline: Deadline
) -> Passphrase:
    """Read a secret from a gateway with temporary credentials.

    source: the SDK's name for the origin of the credentials. authorities: path of the trusted CAs. Raises
    KeyFetchError.
    """
    client = kms_openapi.Client(
        kms_openapi.Config(
            credential=_Credential(credentials, source), region_id=region, endpoint=gateway.address, ca=authorities
        )
    )
    request = kms_openapi.GetSecretValueRequest(secret_name=gateway.secret, version_stage=gateway.stage)
    left = max(_LEAST_TIMEOUT, deadline.left())
    try:
        answer = client.get_secret_value_with_options(request, options(left)).body
    except Exception as error:
        raise clock.explain(error, gateway, lambda: trust(authorities), left) from None
    return _passphrase(answer, gateway)


def options(left: float) -> kms_openapi.RuntimeOptions:
    """Return the time limits of a request. left: seconds until the deadline."""
    return kms_openapi.RuntimeOptions(
        autoretry=False,  # keys.retry decides
        connect_timeout=int(1000 * min(left, limit.CONNECT_TIMEOUT)),
        read_timeout=int(1000 * left),
    )


def _passphrase(answer: object, gateway: Gateway) -> Passphrase:
    """Return the passphrase in an answer. The SDK does not check the form of the answer."""
    value, named = getattr(answer, "secret_data", None), getattr(answer, "secret_name", None)
    full = SECRET_ARN.fullmatch(gateway.secret)
    # it is not documented whether the answer has the full name
    names = (None, gateway.secret, full["name"] if full else None)
    if not isinstance(value, str) or named not in names:
        raise kms_transport.no_answer(gateway)
    return kms_value.decode(value, gateway.secret)


def _authorities(role: KmsRole) -> str:
    """Return the path of the trusted CAs: those of the configuration only, or else those of the system."""
    if role.kms_cert_pem is None:
        return str(certificates.store())
    certificates.trusting(
        role.kms_cert_pem,
        "copy the PEM file of the CA again, or leave kms_cert_pem out to trust the CAs that the system trusts",
    )
    return process.anonymous_file("kms-ca.pem", role.kms_cert_pem.encode())


def trust(authorities: str) -> ssl.SSLContext:
    """Return a TLS context that trusts only these CAs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authorities)
    return context


def _gateway(role: KmsRole, region: str) -> Gateway:
    if role.instance:
        certificate = (
            f"kms_cert_pem must be the CA chain of KMS instance {role.instance}: download it again from the instance's"
            " page, and check kms_instance_id and endpoint"
        )
        where, kind = "kms_instance_id", "the gateway of a KMS instance"
    else:
        trusted = "the CAs that the system trusts" if role.kms_cert_pem is None else "the CA in kms_cert_pem"
        certificate = f"it must be signed by {trusted}: check kms_cert_pem, endpoint and region_id"
        where, kind = "region_id", "a shared gateway of KMS"
    return Gateway(
        address=role.address_in(region),
        secret=role.secret_name,
        stage=role.stage,
        certificate=certificate,
        name=f"check {where} and endpoint, and that the machine gets an address and a name server in its VPC",
        connection=f"check {where}, the endpoint and its port, and the security groups on the way",
        answer=f"check that the endpoint is {kind}, and that no proxy stands between",
        codes=_HINTS,
    )


# Keys: parts of the gateway's error code.
_GIVE_IT_A_POLICY = (
    "give the RAM role a policy that allows kms:GetSecretValue on this secret, and kms:Decrypt; see that the role is of"
    " the account in secret_name"
)
_HINTS = (
    ("ResourceNotFound", "check secret_name and region_id: the role's account has no secret of that name there"),
    ("NoPermission", _GIVE_IT_A_POLICY),
    ("NoAuthorized", _GIVE_IT_A_POLICY),
    ("Signature", "check this machine's clock; the role's temporary credentials do not fit their key"),
)

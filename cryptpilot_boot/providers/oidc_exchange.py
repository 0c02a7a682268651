"""From a token of an identity provider to a secret: a program, the security token service, KMS.

There are no static credentials: the token and the credentials (`_LIFE`) are valid for minutes, and each try gets new
ones. Source of the facts: Alibaba Cloud help, Resource Access Management, "AssumeRoleWithOIDC" (version 2015-04-01).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import KeyFetchError, ProgramError
from cryptpilot_boot.passphrase import SecretBuffer
from cryptpilot_boot.providers import clock, kms_openapi, kms_role, kms_transport, limit, program
from cryptpilot_boot.providers.gateway import Gateway
from cryptpilot_boot.providers.metadata import Credentials
from cryptpilot_boot.system import certificates
from cryptpilot_boot.system.run import read_secret
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.oidc import Oidc
    from cryptpilot_boot.providers.provider import Ask
    from cryptpilot_boot.system.run import Ended

_LONGEST_TOKEN = 20_000  # characters
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]{4,%d}" % _LONGEST_TOKEN)  # RFC 6750, 2.1; its length: see above
_SESSION = "cryptpilot"
_LIFE = "900"  # seconds, the shortest that is permitted: one request is made


def prepare(oidc: Oidc) -> Ask:
    """Find the trusted CAs; return what gets a token, exchanges it and asks KMS.

    Raises KeyFetchError if there are no CAs.
    """
    authorities = str(certificates.store())

    def ask(timeout: float) -> Passphrase:
        deadline = Deadline(timeout)
        token = _token(oidc, min(timeout, oidc.timeout))
        left = max(1.0, deadline.left())
        late = KeyFetchError(
            "no complete answer in time from the security token service or from KMS",
            "see which it is: cryptpilot boot report; check the security groups on the way",
            retryable=True,
        )

        def ask_services() -> Passphrase:
            time = Deadline(min(left, limit.LONGEST_TRY))
            credentials = _exchanged(oidc, token, authorities, time)
            return kms_role.read(credentials, "oidc_role_arn", _kms(oidc), oidc.kms.region_id, authorities, time)

        return limit.within(limit.of_a_try(left), ask_services, late)

    return ask


def _token(oidc: Oidc, seconds: float) -> str:
    """Run the program, and return the token that it writes."""
    with SecretBuffer(_LONGEST_TOKEN + 2) as buffer:
        try:
            ended = read_secret([oidc.command, *oidc.args], buffer, timeout=seconds)
        except ProgramError as error:
            raise KeyFetchError(error.what, error.hint) from None
        _require_success(oidc, ended, seconds, full=buffer.full)
        token = bytes(buffer.reveal()).strip()
        if not _TOKEN.fullmatch(token):
            raise KeyFetchError(
                f"{oidc.command} wrote {'nothing' if not token else 'something else than an OIDC token'}",
                "have it write the token to its standard output, and nothing else",
            )
        return token.decode("ascii")


def _require_success(oidc: Oidc, ended: Ended, seconds: float, *, full: bool) -> None:
    """Raise KeyFetchError unless the program succeeded. Its output may contain the token, and is not quoted."""
    if full:
        raise KeyFetchError(
            f"{oidc.command} wrote more than {_LONGEST_TOKEN} characters, the most that a token may have",
            "have it write the token to its standard output, and nothing else",
        )
    if why := program.failure(oidc.command, ended, seconds):
        again = not ended.in_time or ended.status == program.TRY_AGAIN
        raise KeyFetchError(why, program.hint(ended, oidc.timeout), retryable=again)


def _exchanged(oidc: Oidc, token: str, authorities: str, deadline: Deadline) -> Credentials:
    """Return temporary credentials of the role."""
    gateway = _sts(oidc)
    client = kms_openapi.Client(
        kms_openapi.Config(region_id=oidc.kms.region_id, endpoint=gateway.address, ca=authorities)
    )
    params = kms_openapi.Params(
        action="AssumeRoleWithOIDC",
        version="2015-04-01",
        protocol="HTTPS",
        pathname="/",
        method="POST",
        auth_type="Anonymous",  # the token is the only credential
        style="RPC",
        req_body_type="formData",
        body_type="json",
    )
    request = kms_openapi.OpenApiRequest(
        query={
            "OIDCProviderArn": oidc.kms.oidc_provider_arn,
            "OIDCToken": token,
            "RoleArn": oidc.kms.role_arn,
            "RoleSessionName": _SESSION,
            "DurationSeconds": _LIFE,
        }
    )
    try:
        answer: Any = client.call_api(params, request, kms_role.options(deadline.left()))
        told = answer["body"]["Credentials"]
        parts = [told[name] for name in ("AccessKeyId", "AccessKeySecret", "SecurityToken")]
    except (KeyError, TypeError, IndexError):
        raise kms_transport.no_answer(gateway) from None
    except Exception as error:
        raise clock.explain(error, gateway, lambda: kms_role.trust(authorities), deadline.left()) from None
    if not all(isinstance(part, str) and part.isascii() and part.isprintable() and part for part in parts):
        raise kms_transport.no_answer(gateway)
    return Credentials(*parts)


def _sts(oidc: Oidc) -> Gateway:
    return _gateway(oidc, oidc.token_service, "sts_endpoint", "a security token service", "STS")


def _kms(oidc: Oidc) -> Gateway:
    return _gateway(oidc, oidc.gateway, "endpoint", "a shared gateway of KMS", "KMS")


def _gateway(oidc: Oidc, address: str, key: str, kind: str, name: str) -> Gateway:
    where = f"region_id and {key}"
    return Gateway(
        address=address,
        secret=oidc.key_id,
        stage=oidc.stage,
        certificate=f"it must be signed by the CAs that the system trusts: check {where}",
        name=f"check {where}, and that the machine gets an address and a name server in its VPC",
        connection=f"check {where}, its port, and the security groups on the way",
        answer=f"check that {key} is {kind}, and that no proxy stands between",
        codes=_HINTS,
        name_of_service=name,
    )


# Keys: parts of the error code.
_GIVE_IT_A_POLICY = "give the RAM role a policy that allows kms:GetSecretValue on this secret, and kms:Decrypt"
_HINTS = (
    ("ResourceNotFound", "check key_id and region_id: the role's account has no secret of that name there"),
    (
        "AuthenticationFail.NoPermission",
        "see the role's trust policy: its conditions on oidc:iss, oidc:aud and oidc:sub",
    ),
    ("NoPermission", _GIVE_IT_A_POLICY),
    ("NoAuthorized", _GIVE_IT_A_POLICY),
    ("Signature", "check this machine's clock; the role's temporary credentials do not fit their key"),
    ("SecurityToken", "check this machine's clock"),
    ("InvalidAccessKeyId", "check this machine's clock"),
)

"""The error codes of KMS gateways, and their meanings.

Sources: Alibaba Cloud help, "Common error codes" of the KMS Instance API and "Error codes" of the KMS API; see
docs/kms.md.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import KeyFetchError, NoValue
from cryptpilot_boot.providers import foreign
from cryptpilot_boot.providers.kms import PREVIOUS

if TYPE_CHECKING:
    from cryptpilot_boot.providers.gateway import Gateway

_SERVER_FAULT = 500  # lowest HTTP status for a fault of the gateway rather than the request
_TOO_MANY_REQUESTS = 429
_REQUEST_TIMEOUT = 408
_NO_SUCH_VALUE = "ResourceNotFound"
_GENERAL_ADVICE = "look the code up in the KMS documentation; the gateway's own log has the request"


@dataclasses.dataclass(frozen=True)
class _Refusal:
    """The meaning of an error code. what: "{secret}" and "{address}" are replaced."""

    what: str
    hint: str
    retryable: bool = False
    throttled: bool = False


def explain(error: Any, gateway: Gateway) -> KeyFetchError:
    """Explain an error answer of the gateway.

    error: as raised by either SDK, with `code` and `data`. Only a code is quoted, if it looks like one: see
    providers/foreign.py.
    """
    code = _code(error)
    if gateway.stage == PREVIOUS and _NO_SUCH_VALUE in code:
        # the gateway has one code for a secret that does not exist, and for one that was never rotated
        return NoValue(f'secret "{gateway.secret}" has no previous value')
    # one SDK has the status in a field of its own; the other has it beside the fields of the answer, which may be
    # anything
    status = getattr(error, "status_code", None) or error.data.get("httpCode")
    status = status if isinstance(status, int) else 0
    found = next((refusal for part, refusal in _BY_CODE if part in code), None) or _by_status(status)
    hint = next((hint for part, hint in gateway.codes if part in code), found.hint)
    said = foreign.code(code) or (f"HTTP status {status}, and a code that is not known here" if code else "")
    return KeyFetchError(
        f"{found.what.format(secret=gateway.secret, address=gateway.address)}"
        f" ({gateway.name_of_service} says {said or f'nothing but HTTP status {status}'})",
        hint,
        retryable=found.retryable,
        throttled=found.throttled,
    )


def is_about_time(error: object) -> bool:
    """Tell whether the gateway refuses the time of this machine."""
    return any(part in _code(error) for part in _TIME_CODES)


def _code(error: object) -> str:
    """Return the code of an error as it was sent, "" for none: the SDK of the shared gateway has "None" then."""
    code = str(getattr(error, "code", None) or "")
    return "" if code == "None" else code


def throttled(gateway: Gateway) -> KeyFetchError:
    """Return the error for a refusal by a server before the gateway, which has no codes."""
    what = f"{_THROTTLED.what.format(address=gateway.address)} (HTTP status {_TOO_MANY_REQUESTS})"
    return KeyFetchError(what, _THROTTLED.hint, retryable=True, throttled=True)


def _by_status(status: int) -> _Refusal:
    if status >= _SERVER_FAULT or status == _REQUEST_TIMEOUT:
        return _UNWELL
    return _THROTTLED if status == _TOO_MANY_REQUESTS else _REFUSED


_THROTTLED = _Refusal(
    "{address} refuses: there are too many requests",
    "wait, or raise the quota of requests",
    retryable=True,
    throttled=True,
)
_UNWELL = _Refusal(
    "{address} has an internal error", "see the KMS console for the state of the instance", retryable=True
)
_REFUSED = _Refusal("{address} refuses the request", _GENERAL_ADVICE)
_WRONG_TIME = _Refusal("{address} finds that this machine's clock is wrong", "set the clock of this machine")

_TIME_CODES = ("TimeTooSkewed", "TimeStamp", "Timestamp")

# Keys: parts of an error code. The first match counts.
_BY_CODE = (
    ("Throttling", _THROTTLED),
    (
        "Quota",
        _Refusal(
            "a quota of KMS is used up",
            "raise it in the console (Quota Center), or wait",
            retryable=True,
            throttled=True,
        ),
    ),
    *((code, _WRONG_TIME) for code in _TIME_CODES),
    (
        _NO_SUCH_VALUE,
        _Refusal('there is no secret "{secret}"', "check secret_name, and the instance or region that is asked"),
    ),
    (
        "PendingDeletion",
        _Refusal(
            'secret "{secret}", or the key that protects it, is about to be deleted',
            "cancel the deletion in the KMS console before it is too late: afterwards nothing but a recovery key opens"
            " the volume",
        ),
    ),
    (
        "Disabled",
        _Refusal('the key that protects secret "{secret}" is disabled', "enable that key in the KMS console"),
    ),
    (
        "KeyNotFound",
        _Refusal(
            'the key that protects secret "{secret}" is gone',
            "see in the KMS console what happened to it; a recovery key still opens the volume",
        ),
    ),
    ("Unavailable", _UNWELL),  # the key, the secret, or the service
    (
        "OIDCToken.Expired",
        _Refusal(
            "{address} finds that the OIDC token has expired",
            "see what the command gives, and this machine's clock: a token is valid for minutes",
            retryable=True,  # each try gets a new token
        ),
    ),
    (
        "OIDCToken",
        _Refusal(
            "{address} does not accept the OIDC token",
            "see in the RAM console what the identity provider expects: issuer, client IDs, certificate fingerprints",
        ),
    ),
    (
        "AuthenticationFail",
        _Refusal(
            "{address} does not let the OIDC token assume the role",
            "see the role's trust policy: its conditions on oidc:iss, oidc:aud and oidc:sub",
        ),
    ),
    (
        "EntityNotExist",
        _Refusal(
            "{address} knows no such role or identity provider",
            "check role_arn and oidc_provider_arn in the RAM console",
        ),
    ),
    *(
        (code, _Refusal('reading secret "{secret}" is not permitted', "attach a policy that allows it"))
        for code in ("NoPermission", "NoAuthorized")
    ),
    (
        "Unauthorized",
        _Refusal("{address} does not know the client key", "check client_key: was its KeyId deleted, has it expired?"),
    ),
    (
        "Signature",
        _Refusal("{address} does not accept the signature", "check this machine's clock"),
    ),
    *(
        (
            code,
            _Refusal(
                "{address} does not accept the role's temporary credentials",
                "attach the RAM role to the instance again",
                retryable=True,  # each try gets new credentials
            ),
        )
        for code in ("InvalidSecurityToken", "InvalidAccessKeyId")
    ),
    ("InternalFailure", _UNWELL),
)

"""What the SDK raises, turned into a sentence, a next step, and whether asking again may help.

What may pass by itself is retryable, and all that only a person can mend is final: it is told at once, and burns
no deadline. Sources of the codes: Alibaba Cloud help, "Common error codes" of the KMS Instance API and "Error codes" of
the KMS API; see docs/kms.md.
"""

from __future__ import annotations

import dataclasses
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any, Callable, Optional

from google.protobuf.message import DecodeError
from requests import exceptions

from cryptpilot_boot.errors import KeyFetchError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Kms

LONGEST_ANSWER = 256 << 10
"""Bytes of an answer that are read; a secret has at most 30 KiB."""

# <openssl/x509_vfy.h>: X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED; _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_CERTIFICATE_TIMES = (9, 10)
_CERTIFICATE_NAMES = (62, 64)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
_CLOSED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
_SERVER_FAULT = 500  # HTTP status from which on the gateway, not the request, is at fault
_TOO_MANY_REQUESTS = 429
_GENERAL_ADVICE = "look the code up in the KMS documentation; the gateway's own log has the request"


class TooLong(Exception):
    """An answer was longer than LONGEST_ANSWER."""


class BrokenOff(Exception):
    """An answer began and did not end in time, or at all."""


def explain(error: Exception, kms: Kms) -> KeyFetchError:
    """Say what went wrong between here and the gateway."""
    causes = list(_causes(error))
    for kind, say in _EXPLANATIONS:
        for cause in causes:
            if isinstance(cause, kind):
                said = say(cause, kms)
                if said is not None:
                    return said
    if isinstance(getattr(error, "data", None), dict):
        return _refused(error, kms)
    return KeyFetchError(
        f"asking {kms.address} failed: {type(causes[-1]).__name__}",
        f"see whether a KMS gateway answers at {kms.address}",
        retryable=True,
    )


def is_about_time(error: Exception) -> bool:
    """Tell whether the gateway's certificate, or the gateway itself, finds that this is not the time."""
    return any(
        (isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _CERTIFICATE_TIMES)
        or any(part in str(getattr(cause, "code", "") or "") for part in _TIME_CODES)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from what was raised to what it came from: SDK, requests, urllib3, the socket."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        pending += [getattr(cause, "inner_exception", None), getattr(cause, "reason", None)]
        pending += [cause.__cause__, cause.__context__, *cause.args]


def _certificate(cause: Any, kms: Kms) -> KeyFetchError:
    if cause.verify_code in _CERTIFICATE_NAMES:
        return KeyFetchError(
            f"the certificate of {kms.address} is refused: it is for another name",
            "check kms_instance_id and endpoint: whoever answers there is not whom you meant to ask",
        )
    if cause.verify_code in _CERTIFICATE_TIMES:
        return KeyFetchError(
            f"the certificate of {kms.address} is refused: {cause.verify_message}",
            "set the clock of this machine, or have the certificate renewed if the clock is right",
        )
    return KeyFetchError(
        f"the certificate of {kms.address} is refused: {cause.verify_message}",
        f"kms_cert_pem must be the CA chain of KMS instance {kms.kms_instance_id}: download it again from the"
        " instance's page, and check kms_instance_id and endpoint",
    )


def _no_tls(cause: Any, kms: Kms) -> KeyFetchError:
    reason = _plain(getattr(cause, "reason", "") or "the connection was closed").lower().replace("_", " ")
    return KeyFetchError(
        f"no encrypted connection to {kms.address}: {reason}",
        "see that a KMS gateway listens at that port, and that no proxy stands between",
        retryable=True,
    )


def _name(cause: Any, kms: Kms) -> KeyFetchError:
    # EAI_AGAIN: no name server answered; all else: a name server said no, as it may until DHCP is done
    why = "no name server answers" if cause.errno == socket.EAI_AGAIN else "the name is not known"
    return KeyFetchError(
        f"{kms.address} cannot be resolved: {why}",
        "check that the machine is in the VPC of the KMS instance and gets an address and a name server there",
        retryable=True,
        unreachable=True,
    )


def _socket(cause: Any, kms: Kms) -> KeyFetchError | None:
    if cause.errno in _NO_ROUTE:
        return KeyFetchError(
            f"no network to reach {kms.address}: {cause.strerror}",
            "check the machine's network: does its interface get an address and a route?",
            retryable=True,
            unreachable=True,
        )
    if cause.errno in _CLOSED:
        return KeyFetchError(
            f"{kms.address}: {cause.strerror.lower()}",
            "check the KMS instance's state, the endpoint and its port, and the security groups on the way",
            retryable=True,
        )
    return None


def _timeout(cause: object, kms: Kms) -> KeyFetchError:
    stage = "no connection" if isinstance(cause, exceptions.ConnectTimeout) else "no answer"
    return KeyFetchError(
        f"{stage} from {kms.address} in time",
        "check the KMS instance's state and the security groups on the way",
        retryable=True,
    )


def _broken_off(_: object, kms: Kms) -> KeyFetchError:
    return KeyFetchError(
        f"the answer of {kms.address} broke off in the middle",
        "check the KMS instance's state, and the network on the way (its MTU)",
        retryable=True,
    )


def _too_long(_: object, kms: Kms) -> KeyFetchError:
    return KeyFetchError(
        f"the answer of {kms.address} is longer than {LONGEST_ANSWER >> 10} KiB, which no secret is",
        f"see what secret {kms.secret_name} holds, and that a KMS gateway answers at {kms.address}",
    )


def _broken(_: object, kms: Kms) -> KeyFetchError:
    return KeyFetchError(
        f"{kms.address} answered with something that is no KMS answer",
        "check that the endpoint is a KMS gateway and that no proxy stands between",
        retryable=True,  # as a load balancer's answer while the gateway behind it is away
    )


@dataclasses.dataclass(frozen=True)
class _Refusal:
    """What an error code means. what: "{secret}" and "{address}" stand for theirs."""

    what: str
    hint: str
    retryable: bool = False
    throttled: bool = False


def _refused(error: Any, kms: Kms) -> KeyFetchError:
    """Explain an answer of the gateway that says no."""
    code = _plain(error.code)
    status = error.data.get("httpCode") or error.data.get("statusCode") or 0
    found = next((refusal for part, refusal in _BY_CODE if part in code), None) or _by_status(status)
    message = _plain(error.message)
    said = f"KMS says {code}: {message}" if code else f"KMS says nothing but HTTP status {status}"
    return KeyFetchError(
        f"{found.what.format(secret=kms.secret_name, address=kms.address)} ({said})",
        found.hint.format(secret=kms.secret_name, address=kms.address),
        retryable=found.retryable,
        throttled=found.throttled,
    )


def _by_status(status: int) -> _Refusal:
    if status >= _SERVER_FAULT:
        return _UNWELL
    return _THROTTLED if status == _TOO_MANY_REQUESTS else _REFUSED


_THROTTLED = _Refusal(
    "{address} has too much to do", "wait, or raise the quota of requests", retryable=True, throttled=True
)
_UNWELL = _Refusal(
    "{address} has trouble of its own", "see the KMS console for the state of the instance", retryable=True
)
_REFUSED = _Refusal("{address} refuses the request", _GENERAL_ADVICE)
_WRONG_TIME = _Refusal("{address} finds that this machine's clock is wrong", "set the clock of this machine")

_TIME_CODES = ("TimeTooSkewed", "TimeStamp", "Timestamp")

# by a part of the error's code; the first that fits
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
        "ResourceNotFound",
        _Refusal("there is no secret {secret}", "check secret_name, and the instance or region that is asked"),
    ),
    (
        "PendingDeletion",
        _Refusal(
            "secret {secret}, or the key that protects it, is about to be deleted",
            "cancel the deletion in the KMS console before it is too late: afterwards nothing but a recovery key opens"
            " the volume",
        ),
    ),
    (
        "Disabled",
        _Refusal("the key that protects secret {secret} is disabled", "enable that key in the KMS console"),
    ),
    (
        "KeyNotFound",
        _Refusal(
            "the key that protects secret {secret} is gone",
            "see in the KMS console what became of it; a recovery key still opens the volume",
        ),
    ),
    (
        "Unavailable",  # also of the service: ServiceUnavailableTemporary
        _UNWELL,
    ),
    (
        "NoPermission",
        _Refusal(
            "reading secret {secret} is not permitted",
            "give the application access point a policy that allows reading this secret",
        ),
    ),
    (
        "Unauthorized",
        _Refusal("{address} does not know the client key", "check client_key: was its KeyId deleted, has it expired?"),
    ),
    (
        "Signature",
        _Refusal(
            "{address} does not accept the signature",
            "check client_key: the instance does not accept its signature (and check this machine's clock)",
        ),
    ),
    ("InternalFailure", _UNWELL),
)

_Say = Callable[[Any, "Kms"], Optional[KeyFetchError]]

_EXPLANATIONS: tuple[tuple[type[BaseException], _Say], ...] = (
    (TooLong, _too_long),
    (BrokenOff, _broken_off),
    (ssl.SSLCertVerificationError, _certificate),
    (socket.gaierror, _name),
    (exceptions.ConnectTimeout, _timeout),
    (exceptions.ReadTimeout, _timeout),
    (socket.timeout, _timeout),  # what Python 3.9 has for TimeoutError
    (ssl.SSLError, _no_tls),
    (OSError, _socket),
    (DecodeError, _broken),
)

_LONGEST_QUOTE = 200


def _plain(text: object) -> str:
    """Make a text from the network safe for a console, and short."""
    clean = printable(str(text or ""))
    return clean if len(clean) <= _LONGEST_QUOTE else clean[:_LONGEST_QUOTE] + "..."

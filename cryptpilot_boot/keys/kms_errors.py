"""What the SDK raises, turned into a sentence, a next step, and whether asking again may help."""

from __future__ import annotations

import datetime
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

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED, <openssl/x509_vfy.h>
_CERTIFICATE_TIMES = (9, 10)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
_SERVER_BUSY = 500  # HTTP status from which on the gateway, not the request, is at fault
_TOO_MANY_REQUESTS = 429


def explain(error: Exception, kms: Kms) -> KeyFetchError:
    """Say what went wrong between here and the gateway."""
    causes = list(_causes(error))
    for kind, say in _EXPLANATIONS:
        for cause in causes:
            if isinstance(cause, kind):
                said = say(cause, kms)
                if said is not None:
                    return said
    if getattr(error, "code", None):
        return _refused(error)
    return KeyFetchError(
        f"asking {kms.address} failed: {type(causes[-1]).__name__}",
        f"see whether a KMS gateway answers at {kms.address}",
        retryable=True,
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
    if cause.verify_code in _CERTIFICATE_TIMES:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return KeyFetchError(
            f"the certificate of {kms.address} is refused: {cause.verify_message} (this machine's clock says {now})",
            "set the clock of this machine, or renew the certificate if the clock is right",
        )
    return KeyFetchError(
        f"the certificate of {kms.address} is refused: {cause.verify_message}",
        f"kms_cert_pem must be the CA chain of KMS instance {kms.kms_instance_id}: download it again from the"
        " instance's page, and check kms_instance_id and endpoint",
    )


def _name(cause: Any, kms: Kms) -> KeyFetchError:
    # EAI_AGAIN: no name server answered; all else: a name server said no, as it may until DHCP is done
    unreachable = cause.errno == socket.EAI_AGAIN
    why = "no name server answers" if unreachable else "the name is not known"
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
    if cause.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
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


def _broken(_: object, kms: Kms) -> KeyFetchError:
    return KeyFetchError(
        f"{kms.address} answered with something that is no KMS answer",
        "check that the endpoint is a KMS instance gateway and that no proxy stands between",
        retryable=True,
    )


def _refused(error: Any) -> KeyFetchError:
    """Explain an answer of the gateway that says no."""
    code = _plain(error.code)
    status = (error.data or {}).get("httpCode") or 0
    busy = status >= _SERVER_BUSY or status == _TOO_MANY_REQUESTS or "Throttling" in code
    hints = [hint for part, hint in _HINTS if part in code]
    return KeyFetchError(
        f"KMS says {code}: {_plain(error.message)}",
        (hints or ["look the code up in the KMS documentation; the gateway's own log has the request"])[0],
        retryable=busy,
    )


# by a part of the gateway's error code
_HINTS = (
    ("Throttling", "too many requests: wait, or raise the instance's quota"),
    ("ResourceNotFound", "check secret_name: the instance has no secret of that name"),
    ("NoPermission", "give the application access point a policy that allows reading this secret"),
    ("Unauthorized", "check client_key: the instance does not know its KeyId"),
    ("TimeTooSkewed", "set the clock of this machine"),
    (
        "Signature",
        "check client_key: the instance does not accept its signature (and check this machine's clock)",
    ),
    ("Disabled", "enable the key that protects the secret"),
    ("InternalFailure", "the KMS instance has trouble of its own; see its console"),
)

_Say = Callable[[Any, "Kms"], Optional[KeyFetchError]]

_EXPLANATIONS: tuple[tuple[type[BaseException], _Say], ...] = (
    (ssl.SSLCertVerificationError, _certificate),
    (socket.gaierror, _name),
    (exceptions.ConnectTimeout, _timeout),
    (exceptions.ReadTimeout, _timeout),
    (socket.timeout, _timeout),  # what Python 3.9 has for TimeoutError
    (OSError, _socket),
    (DecodeError, _broken),
    (exceptions.ChunkedEncodingError, _broken),
)

_LONGEST_QUOTE = 200


def _plain(text: object) -> str:
    """Make a text from the network safe for a console, and short."""
    clean = printable(str(text or ""))
    return clean if len(clean) <= _LONGEST_QUOTE else clean[:_LONGEST_QUOTE] + "..."

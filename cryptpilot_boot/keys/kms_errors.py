"""What the SDK raises, turned into a sentence, a next step, and whether asking again may help."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import json
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, Callable, Optional

from google.protobuf.message import DecodeError
from requests import exceptions

from cryptpilot_boot.errors import KeyFetchError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED, <openssl/x509_vfy.h>
_CERTIFICATE_TIMES = (9, 10)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
_SERVER_BUSY = 500  # HTTP status from which on the gateway, not the request, is at fault
_TOO_MANY_REQUESTS = 429


@dataclasses.dataclass(frozen=True)
class Gateway:
    """Who was asked, and what a person can do when it did not work.

    address: "host" or "host:port". The others are hints: certificate: when its certificate is refused; name: when its
    name cannot be resolved; connection: when there is no connection, or no answer; answer: when the answer makes no
    sense. codes: by a part of the gateway's error code, before those that every gateway has. passing: parts of codes of
    what may be otherwise when it is asked again.
    """

    address: str
    certificate: str
    name: str
    connection: str
    answer: str
    codes: tuple[tuple[str, str], ...] = ()
    passing: tuple[str, ...] = ()


def explain(error: Exception, gateway: Gateway) -> KeyFetchError:
    """Say what went wrong between here and the gateway."""
    causes = list(_causes(error))
    for kind, say in _EXPLANATIONS:
        for cause in causes:
            if isinstance(cause, kind):
                said = say(cause, gateway)
                if said is not None:
                    return said
    if getattr(error, "code", None):
        return _refused(error, gateway)
    return KeyFetchError(
        f"asking {gateway.address} failed: {type(causes[-1]).__name__}",
        f"see whether a KMS gateway answers at {gateway.address}",
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


def _certificate(cause: Any, gateway: Gateway) -> KeyFetchError:
    if cause.verify_code in _CERTIFICATE_TIMES:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return KeyFetchError(
            f"the certificate of {gateway.address} is refused: {cause.verify_message}"
            f" (this machine's clock says {now})",
            "set the clock of this machine, or renew the certificate if the clock is right",
        )
    return KeyFetchError(
        f"the certificate of {gateway.address} is refused: {cause.verify_message}",
        gateway.certificate,
    )


def _name(cause: Any, gateway: Gateway) -> KeyFetchError:
    # EAI_AGAIN: no name server answered; all else: a name server said no, as it may until DHCP is done
    unreachable = cause.errno == socket.EAI_AGAIN
    why = "no name server answers" if unreachable else "the name is not known"
    return KeyFetchError(
        f"{gateway.address} cannot be resolved: {why}",
        gateway.name,
        retryable=True,
        unreachable=True,
    )


def _socket(cause: Any, gateway: Gateway) -> KeyFetchError | None:
    if cause.errno in _NO_ROUTE:
        return KeyFetchError(
            f"no network to reach {gateway.address}: {cause.strerror}",
            "check the machine's network: does its interface get an address and a route?",
            retryable=True,
            unreachable=True,
        )
    if cause.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
        return KeyFetchError(
            f"{gateway.address}: {cause.strerror.lower()}",
            gateway.connection,
            retryable=True,
        )
    return None


def _timeout(cause: object, gateway: Gateway) -> KeyFetchError:
    stage = "no connection" if isinstance(cause, exceptions.ConnectTimeout) else "no answer"
    return KeyFetchError(
        f"{stage} from {gateway.address} in time",
        gateway.connection,
        retryable=True,
    )


def _broken(_: object, gateway: Gateway) -> KeyFetchError:
    return no_answer(gateway)


def no_answer(gateway: Gateway) -> KeyFetchError:
    """Say that something answered, and not as a gateway does."""
    return KeyFetchError(
        f"{gateway.address} answered with something that is no KMS answer",
        gateway.answer,
        retryable=True,
    )


def _refused(error: Any, gateway: Gateway) -> KeyFetchError:
    """Explain an answer of the gateway that says no."""
    code = plain(error.code)
    data = error.data or {}
    status = data.get("httpCode") or data.get("statusCode") or 0
    busy = status >= _SERVER_BUSY or status == _TOO_MANY_REQUESTS or "Throttling" in code
    hints = [hint for part, hint in (*gateway.codes, *_HINTS) if part in code]
    return KeyFetchError(
        f"KMS says {code}: {plain(_WHAT_WAS_SIGNED.sub('', str(data.get('Message') or error.message)))}",
        (hints or ["look the code up in the KMS documentation; the gateway's own log has the request"])[0],
        retryable=busy or any(part in code for part in gateway.passing),
    )


# A gateway that refuses a signature may quote what it made it from, and there are credentials in that.
_WHAT_WAS_SIGNED = re.compile(r"[^.]*\bstring ?to ?sign.*", re.IGNORECASE | re.DOTALL)

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

_Say = Callable[[Any, "Gateway"], Optional[KeyFetchError]]

_EXPLANATIONS: tuple[tuple[type[BaseException], _Say], ...] = (
    (ssl.SSLCertVerificationError, _certificate),
    (socket.gaierror, _name),
    (exceptions.ConnectTimeout, _timeout),
    (exceptions.ReadTimeout, _timeout),
    (socket.timeout, _timeout),  # what Python 3.9 has for TimeoutError
    (OSError, _socket),
    (DecodeError, _broken),
    (exceptions.ChunkedEncodingError, _broken),
    (json.JSONDecodeError, _broken),
    (UnicodeDecodeError, _broken),
)

_LONGEST_QUOTE = 200


def plain(text: object) -> str:
    """Make a text from the network safe for a console, and short."""
    clean = printable(str(text or ""))
    return clean if len(clean) <= _LONGEST_QUOTE else clean[:_LONGEST_QUOTE] + "..."

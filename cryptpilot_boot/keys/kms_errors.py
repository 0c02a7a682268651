"""What the SDK raises, turned into a sentence, a next step, and whether asking again may help.

What may pass by itself is retryable, and all that only a person can mend is final: it is told at once, and burns
no deadline. Sources of the codes: Alibaba Cloud help, "Common error codes" of the KMS Instance API and "Error codes" of
the KMS API; see docs/kms.md.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import socket
import ssl
import zlib
from typing import TYPE_CHECKING, Any, Callable, Optional

from google.protobuf.message import DecodeError
from requests import exceptions

from cryptpilot_boot.config.model import PREVIOUS
from cryptpilot_boot.errors import KeyFetchError, NoValue, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_ANSWER = 256 << 10
"""Bytes of an answer that are read; a secret has at most 30 KiB."""

# <openssl/x509_vfy.h>: X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED; _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_CERTIFICATE_TIMES = (9, 10)
_CERTIFICATE_NAMES = (62, 64)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
_CLOSED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
_SERVER_FAULT = 500  # HTTP status from which on the gateway, not the request, is at fault
_TOO_MANY_REQUESTS = 429
_REQUEST_TIMEOUT = 408
_NO_SUCH_VALUE = "ResourceNotFound"
_GENERAL_ADVICE = "look the code up in the KMS documentation; the gateway's own log has the request"


class TooLong(Exception):
    """An answer was longer than LONGEST_ANSWER."""


class Redirected(Exception):
    """An answer said to ask somewhere else, where nobody of this machine's knowledge is."""


class Throttled(Exception):
    """Too many asked, says something that is no gateway, such as a load balancer before it."""


class BrokenOff(Exception):
    """An answer began and did not end in time, or at all."""


@dataclasses.dataclass(frozen=True)
class Gateway:
    """Who was asked for what, and what a person can do when it did not work.

    address: "host" or "host:port". secret: its name; stage: which of its values. The others are hints: certificate:
    when its certificate is refused; name: when its name cannot be resolved; connection: when there is no connection, or
    no answer; answer: when the answer makes no sense. codes: by a part of the gateway's error code, in place of those
    that every gateway has.
    """

    address: str
    secret: str
    stage: str
    certificate: str
    name: str
    connection: str
    answer: str
    codes: tuple[tuple[str, str], ...] = ()


def explain(error: Exception, gateway: Gateway) -> KeyFetchError:
    """Say what went wrong between here and the gateway."""
    causes = list(_causes(error))
    for kind, say in _EXPLANATIONS:
        for cause in causes:
            if isinstance(cause, kind):
                said = say(cause, gateway)
                if said is not None:
                    return said
    if isinstance(getattr(error, "data", None), dict):
        return _refused(error, gateway)
    return KeyFetchError(
        f"asking {gateway.address} failed: {type(causes[-1]).__name__}",
        f"see whether a KMS gateway answers at {gateway.address}",
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


def _certificate(cause: Any, gateway: Gateway) -> KeyFetchError:
    if cause.verify_code in _CERTIFICATE_NAMES:
        return KeyFetchError(
            f"the certificate of {gateway.address} is refused: it is for another name",
            f"whoever answers there is not whom you meant to ask; {gateway.certificate}",
        )
    if cause.verify_code in _CERTIFICATE_TIMES:
        return KeyFetchError(
            f"the certificate of {gateway.address} is refused: {cause.verify_message}",
            "set the clock of this machine, or have the certificate renewed if the clock is right",
        )
    return KeyFetchError(
        f"the certificate of {gateway.address} is refused: {cause.verify_message}",
        gateway.certificate,
    )


def _no_tls(cause: Any, gateway: Gateway) -> KeyFetchError:
    reason = plain(getattr(cause, "reason", "") or "the connection was closed").lower().replace("_", " ")
    return KeyFetchError(
        f"no encrypted connection to {gateway.address}: {reason}",
        "see that a KMS gateway listens at that port, and that no proxy stands between",
        retryable=True,
    )


def _name(cause: Any, gateway: Gateway) -> KeyFetchError:
    # EAI_AGAIN: no name server answered; all else: a name server said no, as it may until DHCP is done
    why = "no name server answers" if cause.errno == socket.EAI_AGAIN else "the name is not known"
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
    if cause.errno in _CLOSED:
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


def too_slow(gateway: Gateway) -> KeyFetchError:
    """Say that there was an answer of which no end could be seen."""
    return KeyFetchError(f"no whole answer from {gateway.address} in time", gateway.connection, retryable=True)


def _broken_off(_: object, gateway: Gateway) -> KeyFetchError:
    return KeyFetchError(
        f"the answer of {gateway.address} broke off in the middle",
        f"{gateway.connection} (its MTU, too)",
        retryable=True,
    )


def _too_long(_: object, gateway: Gateway) -> KeyFetchError:
    return KeyFetchError(
        f"the answer of {gateway.address} is longer than {LONGEST_ANSWER >> 10} KiB, which no secret is",
        f"see what secret {gateway.secret} holds, and that a KMS gateway answers at {gateway.address}",
    )


def _redirected(_: object, gateway: Gateway) -> KeyFetchError:
    return KeyFetchError(
        f"{gateway.address} sends us to another address, where we do not ask",
        gateway.answer,
        retryable=True,
    )


def _throttled(_: object, gateway: Gateway) -> KeyFetchError:
    what = f"{_THROTTLED.what.format(address=gateway.address)} (HTTP status {_TOO_MANY_REQUESTS})"
    return KeyFetchError(what, _THROTTLED.hint, retryable=True, throttled=True)


def _broken(_: object, gateway: Gateway) -> KeyFetchError:
    return no_answer(gateway)


def no_answer(gateway: Gateway) -> KeyFetchError:
    """Say that something answered, and not as a gateway does."""
    return KeyFetchError(
        f"{gateway.address} answered with something that is no KMS answer",
        gateway.answer,
        retryable=True,  # as a load balancer's answer while the gateway behind it is away
    )


@dataclasses.dataclass(frozen=True)
class _Refusal:
    """What an error code means. what: "{secret}" and "{address}" stand for theirs."""

    what: str
    hint: str
    retryable: bool = False
    throttled: bool = False


def _refused(error: Any, gateway: Gateway) -> KeyFetchError:
    """Explain an answer of the gateway that says no."""
    # the shared gateway's SDK says "None" of a code that is not there
    code = "" if error.code in (None, "None") else plain(error.code)
    if gateway.stage == PREVIOUS and _NO_SUCH_VALUE in code:
        # of a secret that was never rotated the gateway says the same as of one that is not there
        return NoValue(f"secret {gateway.secret} has no previous value")
    # the one SDK has it beside the answer's own fields, which are whatever was sent, the other among its own
    status = getattr(error, "status_code", None) or error.data.get("httpCode") or 0
    found = next((refusal for part, refusal in _BY_CODE if part in code), None) or _by_status(status)
    hint = next((hint for part, hint in gateway.codes if part in code), found.hint)
    # where there is no message the shared gateway's SDK makes one up
    made_up = "" if hasattr(error, "status_code") else error.message
    told = error.data.get("Message") or error.data.get("message") or made_up
    message = plain(_WHAT_WAS_SIGNED.sub("", str(told or "")))
    said = "KMS says " + (": ".join(filter(None, (code, message))) or f"nothing but HTTP status {status}")
    return KeyFetchError(
        f"{found.what.format(secret=gateway.secret, address=gateway.address)} ({said})",
        hint,
        retryable=found.retryable,
        throttled=found.throttled,
    )


# A gateway that refuses a signature may quote what it made it from, and there are credentials in that.
_WHAT_WAS_SIGNED = re.compile(r"[^.]*\b(?:string ?to ?sign|canonical ?request).*", re.IGNORECASE | re.DOTALL)


def _by_status(status: int) -> _Refusal:
    if status >= _SERVER_FAULT or status == _REQUEST_TIMEOUT:
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
        _NO_SUCH_VALUE,
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
    ("Unavailable", _UNWELL),  # of the key, of the secret, of the service
    *(
        (code, _Refusal("reading secret {secret} is not permitted", "give whoever asks a policy that allows it"))
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
                "attach the RAM role to the instance anew",
                retryable=True,  # each try has credentials of its own
            ),
        )
        for code in ("InvalidSecurityToken", "InvalidAccessKeyId")
    ),
    ("InternalFailure", _UNWELL),
)

_Say = Callable[[Any, "Gateway"], Optional[KeyFetchError]]

_EXPLANATIONS: tuple[tuple[type[BaseException], _Say], ...] = (
    (TooLong, _too_long),
    (BrokenOff, _broken_off),
    (Redirected, _redirected),
    (Throttled, _throttled),
    (ssl.SSLCertVerificationError, _certificate),
    (socket.gaierror, _name),
    (exceptions.ConnectTimeout, _timeout),
    (exceptions.ReadTimeout, _timeout),
    (socket.timeout, _timeout),  # what Python 3.9 has for TimeoutError
    (ssl.SSLError, _no_tls),
    (OSError, _socket),
    (DecodeError, _broken),
    (json.JSONDecodeError, _broken),
    (RecursionError, _broken),
    (zlib.error, _broken),
    (UnicodeDecodeError, _broken),
)

_LONGEST_QUOTE = 200


def plain(text: object) -> str:
    """Make a text from the network safe for a console, and short."""
    clean = printable(str(text or ""))
    return clean if len(clean) <= _LONGEST_QUOTE else clean[:_LONGEST_QUOTE] + "..."

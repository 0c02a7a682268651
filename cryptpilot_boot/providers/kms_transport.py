"""Errors on the way to a KMS gateway and back, before the gateway itself has answered."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import zlib
from typing import TYPE_CHECKING, Any, Callable, Optional

from google.protobuf.message import DecodeError

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import absent, foreign, kms_codes

# They guess encodings of texts, and bring public CAs; neither is used here.
absent.stand_in("charset_normalizer", "certifi")

from requests import exceptions  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.providers.gateway import Gateway

LONGEST_ANSWER = 256 << 10
"""Bytes of an answer that are read; a secret has at most 30 KiB."""

# <openssl/x509_vfy.h>: X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED; _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_CERTIFICATE_TIMES = (9, 10)
_CERTIFICATE_NAMES = (62, 64)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
_CLOSED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


class AnswerTooLong(Exception):
    """An answer was longer than LONGEST_ANSWER."""


class Redirected(Exception):
    """An answer redirects to another address, which may be anyone's."""


class NotAnAnswer(Exception):
    """An answer has a status that a gateway does not send to our requests."""


class Throttled(Exception):
    """A server before the gateway, such as a load balancer, refuses because of too many requests."""


class BrokenOff(Exception):
    """An answer began, and did not end in time or at all."""


def explain(causes: Sequence[BaseException], gateway: Gateway) -> KeyFetchError | None:
    """Explain an error on the way; None if it is not one. causes: the last one first."""
    for kind, say in _EXPLANATIONS:
        for cause in causes:
            if isinstance(cause, kind):
                said = say(cause, gateway)
                if said is not None:
                    return said
    return None


def is_about_time(error: BaseException) -> bool:
    """Tell whether a certificate is refused because of its dates."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _CERTIFICATE_TIMES


def _certificate(cause: Any, gateway: Gateway) -> KeyFetchError:
    if cause.verify_code in _CERTIFICATE_NAMES:
        return KeyFetchError(
            f"the certificate of {gateway.address} is refused: it is for another name",
            f"another server answers at that address; {gateway.certificate}",
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
    reason = foreign.tls_reason(getattr(cause, "reason", "")) or "the connection was closed"
    return KeyFetchError(
        f"no encrypted connection to {gateway.address}: {reason}",
        "see that a KMS gateway listens at that port, and that no proxy stands between",
        retryable=True,
    )


def _name(cause: Any, gateway: Gateway) -> KeyFetchError:
    # EAI_AGAIN: no name server answered. Otherwise a name server said no, as it may until DHCP is done.
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
            f"no network to reach {gateway.address}: {os.strerror(cause.errno)}",
            "check the machine's network: does its interface get an address and a route?",
            retryable=True,
            unreachable=True,
        )
    if cause.errno in _CLOSED:
        return KeyFetchError(
            f"{gateway.address}: {os.strerror(cause.errno).lower()}",
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
    """Return the error for an answer that did not end in time."""
    return KeyFetchError(f"no complete answer from {gateway.address} in time", gateway.connection, retryable=True)


def _broken_off(_: object, gateway: Gateway) -> KeyFetchError:
    return KeyFetchError(
        f"the answer of {gateway.address} broke off in the middle",
        f"{gateway.connection} (its MTU, too)",
        retryable=True,
    )


def _too_long(_: object, gateway: Gateway) -> KeyFetchError:
    return KeyFetchError(
        f"the answer of {gateway.address} is longer than {LONGEST_ANSWER >> 10} KiB, longer than any secret",
        f'see what secret "{gateway.secret}" holds, and that a KMS gateway answers at {gateway.address}',
    )


def _redirected(_: object, gateway: Gateway) -> KeyFetchError:
    return KeyFetchError(
        f"{gateway.address} answered with a redirect, which is not followed",
        gateway.answer,
        retryable=True,
    )


def _throttled(_: object, gateway: Gateway) -> KeyFetchError:
    return kms_codes.throttled(gateway)


def _broken(_: object, gateway: Gateway) -> KeyFetchError:
    return no_answer(gateway)


def no_answer(gateway: Gateway) -> KeyFetchError:
    """Return the error for an answer that is not a gateway's."""
    return KeyFetchError(
        f"{gateway.address} answered with something that is not an answer of {gateway.name_of_service}",
        gateway.answer,
        retryable=True,  # a load balancer answers so while its gateway is down
    )


_Say = Callable[[Any, "Gateway"], Optional[KeyFetchError]]

_EXPLANATIONS: tuple[tuple[type[BaseException], _Say], ...] = (
    (AnswerTooLong, _too_long),
    (BrokenOff, _broken_off),
    (Redirected, _redirected),
    (Throttled, _throttled),
    (ssl.SSLCertVerificationError, _certificate),
    (socket.gaierror, _name),
    (exceptions.ConnectTimeout, _timeout),
    (exceptions.ReadTimeout, _timeout),
    (socket.timeout, _timeout),  # Python 3.9 raises it in place of TimeoutError
    (ssl.SSLError, _no_tls),
    (OSError, _socket),
    (NotAnAnswer, _broken),
    (DecodeError, _broken),
    (json.JSONDecodeError, _broken),
    (RecursionError, _broken),
    (zlib.error, _broken),
    (UnicodeDecodeError, _broken),
)

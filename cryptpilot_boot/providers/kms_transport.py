"""What can go wrong on the way to a KMS gateway and back, before the gateway itself has said anything."""

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

# Guesses in what encoding a text is, which nothing here asks; public authorities, which nothing here trusts.
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


class TooLong(Exception):
    """An answer was longer than LONGEST_ANSWER."""


class Redirected(Exception):
    """An answer said to ask somewhere else, where nobody of this machine's knowledge is."""


class NotAnAnswer(Exception):
    """An answer has a status that a gateway gives to no question of ours."""


class Throttled(Exception):
    """Too many asked, says something that is no gateway, such as a load balancer before it."""


class BrokenOff(Exception):
    """An answer began and did not end in time, or at all."""


def explain(causes: Sequence[BaseException], gateway: Gateway) -> KeyFetchError | None:
    """Say what went wrong on the way, or None when nothing is known to have. causes: from the last to the first."""
    for kind, say in _EXPLANATIONS:
        for cause in causes:
            if isinstance(cause, kind):
                said = say(cause, gateway)
                if said is not None:
                    return said
    return None


def is_about_time(error: BaseException) -> bool:
    """Tell whether a certificate is refused for it is not valid now."""
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
    """Say that something answered, and not as a gateway does."""
    return KeyFetchError(
        f"{gateway.address} answered with something that is not an answer of {gateway.name_of_service}",
        gateway.answer,
        retryable=True,  # as a load balancer's answer while the gateway behind it is away
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
    (NotAnAnswer, _broken),
    (DecodeError, _broken),
    (json.JSONDecodeError, _broken),
    (RecursionError, _broken),
    (zlib.error, _broken),
    (UnicodeDecodeError, _broken),
)

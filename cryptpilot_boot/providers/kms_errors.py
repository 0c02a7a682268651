"""Errors of the SDK as a sentence, a next step, and whether a retry may help.

What may end without help is retryable. What only a person can repair is final: it is reported at once, without waiting
for the deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import kms_codes, kms_transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.providers.gateway import Gateway


def explain(error: Exception, gateway: Gateway) -> KeyFetchError:
    """Explain an error between this machine and the gateway."""
    causes = list(_causes(error))
    said = kms_transport.explain(causes, gateway)
    if said is not None:
        return said
    if isinstance(getattr(error, "data", None), dict):
        return kms_codes.explain(error, gateway)
    # raised in the SDKs by an answer that is not of the form they expect
    if any(isinstance(cause, (AttributeError, TypeError, LookupError)) for cause in causes):
        return kms_transport.no_answer(gateway)
    return KeyFetchError(
        f"asking {gateway.address} failed: {type(causes[-1]).__name__}",
        f"see whether a KMS gateway answers at {gateway.address}",
        retryable=True,
    )


def is_about_time(error: Exception) -> bool:
    """Tell whether the dates of the gateway's certificate, or the gateway itself, refuse the time."""
    return any(kms_transport.is_about_time(cause) or kms_codes.is_about_time(cause) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all its causes: SDK, requests, urllib3, socket."""
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

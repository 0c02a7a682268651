"""Why no key opens a volume: the errors of its sources, put together for a user. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, Interrupted, KeyFetchError, NoValue, WrongSecret
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.race import Failure


def of_source(volume: Volume, failure: Failure) -> CryptpilotError:
    """Return the error of one source.

    If its secret has no current value, that is the cause. A subclass of WrongSecret says more than could be said here.
    """
    if failure.previous is None or type(failure.current) is not WrongSecret:
        return failure.current
    if isinstance(failure.previous, KeyFetchError):
        return without_previous(volume, failure.previous)
    return neither_opens(volume) if isinstance(failure.previous, WrongSecret) else failure.previous


def of_all(volume: Volume, failures: Mapping[int, Failure]) -> CryptpilotError:
    """Return the error of a volume that none of its sources opens. failures: of those that were asked, by number."""
    if any(isinstance(failure.last, Interrupted) for failure in failures.values()):
        return Interrupted()
    errors = {number: of_source(volume, failures[number]) for number in sorted(failures)}
    if len(errors) == 1:
        return next(iter(errors.values()))
    became = "; ".join(f"{named(volume, number)}: {error.what}" for number, error in errors.items())
    hints = {number: _hint(volume, number, error) for number, error in errors.items()}
    todo = "; ".join(f"{volume.source_name(number)}: {hint}" for number, hint in hints.items() if hint)
    return CryptpilotError(f"none of its {len(errors)} sources opens it: {became}", todo)


def without_previous(volume: Volume, error: KeyFetchError) -> CryptpilotError:
    """Return the error for a secret whose current value opens no key slot, and whose previous one is not available."""
    if isinstance(error, NoValue):
        return wrong_secret(volume, f"no key slot takes it, and {error.what}")
    return CryptpilotError(
        f"the current value of the secret does not open {volume.dev}, and the previous one cannot be had: {error.what}",
        error.hint,
    )


def neither_opens(volume: Volume) -> WrongSecret:
    """Return the error for a secret of which neither the current nor the previous value opens a key slot."""
    return wrong_secret(volume, "no key slot takes it, nor its previous value")


def wrong_secret(volume: Volume, why: str) -> WrongSecret:
    """Return the error for a secret that does not open a volume."""
    return WrongSecret(
        f"the secret does not open {volume.dev}: {why}",
        f"check that {table.of(volume.encrypt).describe(volume.encrypt)['provider']} is what the volume was"
        " initialized with, and that the secret has not changed since",
    )


def _hint(volume: Volume, number: int, error: CryptpilotError) -> str:
    """Return what to do about a source. The hint of WrongSecret is about the first source."""
    if not isinstance(error, WrongSecret):
        return error.hint
    name = volume.source_name(number)
    return f"check that its secret has not changed; if it was never enrolled: cryptpilot enroll {volume.volume} {name}"

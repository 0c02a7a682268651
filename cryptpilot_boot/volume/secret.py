"""The key of a volume: which source, and which value of its secret, opens the header."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Callable, TypeVar

from cryptpilot_boot import keys
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError, NoValue
from cryptpilot_boot.keys.sources import Sources, named

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.sources import Secret
    from cryptpilot_boot.passphrase import Passphrase

T = TypeVar("T")


class WrongSecret(CryptpilotError):
    """No key slot takes a passphrase."""


class WithoutPrevious(CryptpilotError):
    """No key slot takes the current value of a secret, and the previous one is not available."""


class NoSource(CryptpilotError):
    """No source of a volume's key opens it."""


KEYLESS = (KeyFetchError, WrongSecret, WithoutPrevious, NoSource)
"""Errors of an opening that has no key: the device is unchanged, and another key may open it."""


class Opening(enum.Enum):
    """How a volume was opened: before, by a value of its secret, or by a key that a person typed."""

    WAS_OPEN = enum.auto()
    CURRENT = enum.auto()
    PREVIOUS = enum.auto()
    TYPED = enum.auto()


def with_either_value(
    volume: Volume,
    ask_passphrase: Secret,
    ask_previous: Asked | None,
    attempt: Callable[[Passphrase], object],
) -> Opening:
    """Make an attempt with the current value of a secret and, if it raises WrongSecret, with the previous one.

    The previous value is also tried if the current one is unusable, for instance not base64: that must not lock the
    volume. With several sources, this is done with each answer. Raises CryptpilotError.
    """
    if isinstance(ask_passphrase, Sources):
        return with_any_source(
            volume, ask_passphrase, lambda ask, previous: with_either_value(volume, ask, previous, attempt)
        )
    unusable: NoValue | None = None
    try:
        with ask_passphrase() as passphrase:
            attempt(passphrase)
    except (WrongSecret, NoValue) as error:
        if ask_previous is None:
            raise
        if isinstance(error, NoValue):
            unusable = error
    else:
        return Opening.CURRENT
    try:
        with ask_previous() as passphrase:
            attempt(passphrase)
    except KeyFetchError as error:
        raise unusable or without_previous(volume, error) from None
    except WrongSecret:
        raise unusable or neither_opens(volume) from None
    return Opening.PREVIOUS


def without_previous(volume: Volume, error: KeyFetchError) -> CryptpilotError:
    """Return the error for a secret whose current value opens no key slot, and whose previous one is not available."""
    if isinstance(error, NoValue):
        return wrong_secret(volume, f"no key slot takes it, and {error.what}")
    return WithoutPrevious(
        f"the current value of the secret does not open {volume.dev}, and the previous one cannot be had: {error.what}",
        error.hint,
    )


def neither_opens(volume: Volume) -> WrongSecret:
    """Return the error for a secret of which neither the current nor the previous value opens a key slot."""
    return wrong_secret(volume, "no key slot takes it, and none its previous value")


def wrong_secret(volume: Volume, why: str) -> WrongSecret:
    """Say that a secret does not open a volume."""
    return WrongSecret(
        f"the secret does not open {volume.dev}: {why}",
        f"check that {keys.describe(volume.encrypt)['provider']} is what the volume was initialized with, and"
        " that the secret has not changed since",
    )


def with_any_source(volume: Volume, sources: Sources, attempt: Callable[[Asked, Asked | None], T]) -> T:
    """Make an attempt with what each source answers, in the order of the answers, until one succeeds.

    attempt: is given what returns the current value, and what asks for the previous one or None. An error about the
    secret ends that source only; any other error ends everything. Raises CryptpilotError that says what happened to
    each source if all of them fail.
    """
    with sources.race() as race:
        while (found := sources.wait(race)) is not None:
            number, answer = found
            try:
                result = attempt(answer, sources.previous(number))
            except (WrongSecret, WithoutPrevious, KeyFetchError) as error:
                race.fail(number, error)
            else:
                sources.opened_by = number
                return result
        raise _no_source(volume, race.errors)


def _no_source(volume: Volume, errors: dict[int, CryptpilotError]) -> NoSource:
    """Return the error that says what happened to each source of a key."""
    became = "; ".join(f"{named(volume, number)}: {errors[number].what}" for number in sorted(errors))
    hints = {number: _hint(volume, number, errors[number]) for number in sorted(errors)}
    todo = "; ".join(f"{volume.source_name(number)}: {hint}" for number, hint in hints.items() if hint)
    return NoSource(f"none of its {len(errors)} sources opens it: {became}", todo)


def _hint(volume: Volume, number: int, error: CryptpilotError) -> str:
    """Return what to do about a source. The hint of WrongSecret is about the first source."""
    if not isinstance(error, WrongSecret):
        return error.hint
    name = volume.source_name(number)
    return f"check that its secret has not changed; if it was never enrolled: cryptpilot enroll {volume.volume} {name}"

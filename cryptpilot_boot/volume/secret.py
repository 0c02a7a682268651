"""Opening the header of a volume with the answers of its secret."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Callable, TypeVar

from cryptpilot_boot.errors import WrongSecret

if TYPE_CHECKING:
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase

T = TypeVar("T")


class Opening(enum.Enum):
    """How a volume was opened: before, or as `keys.race.Value` says, whose names are here too."""

    WAS_OPEN = enum.auto()
    CURRENT = enum.auto()
    PREVIOUS = enum.auto()
    TYPED = enum.auto()


@dataclasses.dataclass(frozen=True)
class Opened:
    """How a volume was opened. source: the number of the source that gave the key; None if none of them did."""

    how: Opening
    source: int | None = None


def with_secret(secret: Secret, attempt: Callable[[Passphrase], T]) -> tuple[T, Opened]:
    """Make an attempt with each answer of a secret until one does not raise WrongSecret; return its result.

    A source whose current value opens nothing, or that has none that can be used, is asked for the previous value: a
    rotation must not lock the volume. Raises CryptpilotError: that of an attempt for another reason ends everything.
    """
    with secret:
        while True:
            answer = secret.next()
            try:
                with answer.passphrase as passphrase:
                    result = attempt(passphrase)
            except WrongSecret as error:
                secret.reject(answer, error)
            else:
                return result, Opened(Opening[answer.value.name], answer.source)

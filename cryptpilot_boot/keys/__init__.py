"""Asking key providers for passphrases.

`prepare` does all that needs no network (imports, parsing the client key), while the network comes up. What it returns
asks for the passphrase. Only `keys.retry` decides whether to ask again. The providers are in `providers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.keys import floor
from cryptpilot_boot.keys.retry import ask_until
from cryptpilot_boot.keys.shared import Answers
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import expiry, table
from cryptpilot_boot.providers.provider import Ask
from cryptpilot_boot.system import clock as system_clock
from cryptpilot_boot.system import process

if TYPE_CHECKING:
    import datetime

    from cryptpilot_boot.config import Encrypt
    from cryptpilot_boot.providers.provider import Made

__all__ = [
    "Answers",
    "Ask",
    "Passphrase",
    "ask_until",
    "describe",
    "ending",
    "ends",
    "prepare",
    "previous",
    "require_usable",
    "seal",
    "share",
]


def prepare(encrypt: Encrypt) -> Ask:
    """Prepare to ask a source for its passphrase; return what asks.

    In an initrd, each question first makes sure that the clock is not before the image. Raises KeyFetchError if the
    credentials are unusable.
    """
    provider = table.of(encrypt)
    ask = provider.prepare(encrypt)
    # a one-time password is made here, and needs no clock
    return ask if provider.one_time else floor.after_the_image(ask)


def seal(encrypt: Encrypt, ask: Callable[[Encrypt], Passphrase]) -> Made | None:
    """Make the secret of a source that keeps it, sealed, in the header of its volume; None for another source.

    ask: asks the sources that are combined with it. Raises KeyFetchError.
    """
    process.lock_memory()
    return table.of(encrypt).seal(encrypt, ask)


def require_usable(encrypt: Encrypt) -> None:
    """Raise CryptpilotError if something that can be checked without asking would keep a source from answering."""
    table.of(encrypt).require_usable(encrypt)


def ends(encrypt: Encrypt) -> datetime.datetime | None:
    """Return when the credentials of a source expire; None if they do not, or nothing trustworthy says so.

    Uses no network. None for a client key that cannot be opened: `prepare` reports that.
    """
    return table.of(encrypt).ends(encrypt)


def ending(encrypt: Encrypt) -> expiry.Notice | None:
    """Return a notice that the credentials of a source expire, by the clock of this machine; None if that is far away.

    At boot, call this only after KMS gave the secret: it accepts no clock that is wrong by more than 15 minutes.
    """
    return expiry.notice(ends(encrypt), system_clock.now())


def previous(encrypt: Encrypt) -> Encrypt | None:
    """Return the source of the value that a secret had before its rotation; None if the provider keeps none."""
    return table.of(encrypt).previous(encrypt)


def share(one: Encrypt, other: Encrypt) -> bool:
    """Tell whether two sources give the same secret, as far as the configuration shows."""
    secret = table.of(one).secret(one)
    return bool(secret) and secret == table.of(other).secret(other)


def describe(encrypt: Encrypt) -> dict[str, str]:
    """Describe a source: its provider, and what a person needs to find the secret."""
    return table.of(encrypt).describe(encrypt)

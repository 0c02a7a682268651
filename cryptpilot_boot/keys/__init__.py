"""Asking key providers for passphrases.

`prepare` does all that needs no network (imports, parsing the client key), so that it can be done while the
network comes up; what it returns asks for the passphrase. Whether asking again makes sense is decided in
`keys.retry` alone. The providers are in `providers`.
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
    """Get everything ready to ask for the passphrase of a volume with this `[encrypt]` section.

    In an initrd the clock is held to the image's time before each question. Raises KeyFetchError when the credentials
    are unusable.
    """
    provider = table.of(encrypt)
    ask = provider.prepare(encrypt)
    # nobody is asked for a one-time password, at whatever time
    return ask if provider.one_time else floor.after_the_image(ask)


def seal(encrypt: Encrypt, ask: Callable[[Encrypt], Passphrase]) -> Made | None:
    """Make the secret of a source whose secret is kept, sealed, in the header of its volume; None for another source.

    ask: asks other sources, that are needed together with it. Raises KeyFetchError.
    """
    process.lock_memory()
    return table.of(encrypt).seal(encrypt, ask)


def require_usable(encrypt: Encrypt) -> None:
    """Raise CryptpilotError for what would keep this section from giving a passphrase, without asking for one."""
    table.of(encrypt).require_usable(encrypt)


def ends(encrypt: Encrypt) -> datetime.datetime | None:
    """Return when what this section asks with ends; None where it does not, or nothing says so that can be trusted.

    Touches no network. A client key that cannot be opened says nothing: `prepare` says what is wrong with it.
    """
    return table.of(encrypt).ends(encrypt)


def ending(encrypt: Encrypt) -> expiry.Notice | None:
    """Return what to say of the end of what this section asks with, as the clock has it; None while that is far.

    At boot, ask only once KMS has given the secret out: it tolerates a clock that is 15 minutes off, and no other.
    """
    return expiry.notice(ends(encrypt), system_clock.now())


def previous(encrypt: Encrypt) -> Encrypt | None:
    """Return where the value comes from that a secret had before it was rotated; None where nobody keeps that."""
    return table.of(encrypt).previous(encrypt)


def share(one: Encrypt, other: Encrypt) -> bool:
    """Tell whether two volumes have their passphrase from the same secret, as far as the configuration shows."""
    secret = table.of(one).secret(one)
    return bool(secret) and secret == table.of(other).secret(other)


def describe(encrypt: Encrypt) -> dict[str, str]:
    """Say where the passphrase comes from: the provider, and what a person needs to find the secret."""
    return table.of(encrypt).describe(encrypt)

"""The key providers, one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.providers import execute, kbs, kms, oidc, otp, together, tpm2

if TYPE_CHECKING:
    from cryptpilot_boot.providers.provider import Provider, Source

PROVIDERS: tuple[Provider, ...] = (
    otp.PROVIDER,
    kms.CLIENT_KEY,
    kms.RAM_ROLE,
    kbs.ONE_SHOT,
    kbs.DAEMON,
    oidc.PROVIDER,
    execute.PROVIDER,
    tpm2.PROVIDER,
    together.PROVIDER,
)
"""In the order in which errors name them."""


def names() -> tuple[str, ...]:
    """Return the names of the tables that may be below `[encrypt]`."""
    return tuple(dict.fromkeys(one.name for one in PROVIDERS))


def modes(name: str) -> tuple[Provider, ...]:
    """Return the providers that share the name of a table; the default first, the others chosen by a key."""
    return tuple(one for one in PROVIDERS if one.name == name)


def is_on_device(source: Source) -> bool:
    """Tell whether the secret of a source is sealed in the header of its volume: this machine has to make it."""
    return any(of(one).on_device for one in parts(source))


def parts(source: Source) -> tuple[Source, ...]:
    """Return the sources that a source consists of, or the source itself."""
    return source.sources if isinstance(source, together.Together) else (source,)


def of(source: Source) -> Provider:
    """Return the provider of a source."""
    return next(one for one in PROVIDERS if one.make is type(source))

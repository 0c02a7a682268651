"""The key providers that there are: a row each."""

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
"""In the order in which messages name them."""


def names() -> tuple[str, ...]:
    """Return the names of the tables that there may be below `[encrypt]`."""
    return tuple(dict.fromkeys(one.name for one in PROVIDERS))


def modes(name: str) -> tuple[Provider, ...]:
    """Return the providers that a table's name stands for; more than one if a key of it chooses, the default first."""
    return tuple(one for one in PROVIDERS if one.name == name)


def is_on_device(source: Source) -> bool:
    """Tell whether a source's secret lies, sealed, in the header of its volume, so that this machine has to make it."""
    return any(of(one).on_device for one in parts(source))


def parts(source: Source) -> tuple[Source, ...]:
    """Return the sources that one is made of; itself if it is not made of others."""
    return source.sources if isinstance(source, together.Together) else (source,)


def of(source: Source) -> Provider:
    """Return the provider of a source."""
    return next(one for one in PROVIDERS if one.make is type(source))

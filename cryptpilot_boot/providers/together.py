"""Several values that are all needed: without one of them, the others do not open the volume.

    [encrypt.together.kms]
    ...
    [encrypt.together.tpm2]

Each table has the keys of its provider. The passphrase is derived from all values by HKDF (RFC 5869) with SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from itertools import chain
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers.provider import Made, Needs, Provider, Source
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from cryptpilot_boot.providers.provider import Ask

_SALT = b"cryptpilot together, version 1"
_INFO = b"passphrase of a LUKS2 key slot"


@dataclasses.dataclass(frozen=True)
class Together(Source):
    """Sources whose values are all needed, sorted by the names of their providers."""

    provider = "together"

    sources: tuple[Source, ...]

    @property
    def credentials(self) -> str:  # type: ignore[override]
        """What in any of them other users must not read."""
        return " and ".join(dict.fromkeys(one.credentials for one in self.sources if one.credentials))


def derived(values: Sequence[tuple[str, memoryview]]) -> bytearray:
    """Return 32 bytes derived from values, each with the name of its provider; the caller wipes them.

    Each part is preceded by its length: no two lists of values give the same input.
    """
    fed = bytearray()
    for name, value in values:
        for part in (name.encode(), value):
            fed += len(part).to_bytes(8, "big")
            fed += part
    extracted = bytearray(hmac.new(_SALT, fed, hashlib.sha256).digest())
    expanded = bytearray(hmac.new(extracted, _INFO + b"\x01", hashlib.sha256).digest())
    for used in (fed, extracted):
        used[:] = bytes(len(used))
    return expanded


def combined(parts: Sequence[tuple[str, Passphrase]]) -> Passphrase:
    """Return the passphrase derived from those of several sources, which are wiped.

    It is key material only if all of them are: who knows all but one has to guess that one.
    """
    try:
        views = [(name, passphrase.reveal()) for name, passphrase in sorted(parts, key=lambda one: one[0])]
        key = derived(views)
        result = Passphrase(key, strong=all(passphrase.strong for _, passphrase in parts))
        key[:] = bytes(len(key))
        return result
    finally:
        for _, passphrase in parts:
            passphrase.wipe()


def asking(asks: Sequence[tuple[str, Ask]]) -> Ask:
    """Return what asks the sources one after the other, and derives the passphrase."""

    def ask(timeout: float) -> Passphrase:
        deadline = Deadline(timeout)
        parts: list[tuple[str, Passphrase]] = []
        try:
            for name, one in asks:
                parts.append((name, one(max(1.0, deadline.left()))))
            return combined(parts)
        finally:
            for _, passphrase in parts:
                passphrase.wipe()

    return ask


def with_others(sources: Sequence[Source], made: Source, new: Made, ask: Callable[[Source], Passphrase]) -> Made:
    """Return a new passphrase, made of a new secret of one source and the values of the others. new: is wiped."""
    parts: list[tuple[str, Passphrase]] = [(made.provider, new)]
    try:
        parts += [(one.provider, ask(one)) for one in sources if one != made]
        return Made(combined(parts), new.token)
    finally:
        for _, passphrase in parts:
            passphrase.wipe()


def _prepare(source: Together) -> Ask:
    return asking([(one.provider, _of(one).prepare(one)) for one in source.sources])


def _seal(source: Together, ask: Callable[[Source], Passphrase]) -> Made | None:
    for one in source.sources:
        if new := _of(one).seal(one, ask):
            return with_others(source.sources, one, new, ask)
    return None


def _describe(source: Together) -> dict[str, str]:
    all_of_them = [_of(one).describe(one) for one in source.sources]
    endpoints = {key: value for one in all_of_them for key, value in one.items() if key != "provider"}
    return {"provider": " together with ".join(one["provider"] for one in all_of_them), **endpoints}


def _needs(source: Together) -> Needs:
    needs = [_of(one).needs(one) for one in source.sources]
    together: dict[str, Any] = {}
    for field in dataclasses.fields(Needs):  # all fields there are: what is left out is missing in the image
        values = [getattr(one, field.name) for one in needs]
        together[field.name] = any(values) if isinstance(field.default, bool) else tuple(chain.from_iterable(values))
    return Needs(**together)


def _caution(source: Together) -> str:
    return "; ".join(caution for one in source.sources if (caution := _of(one).caution(one)))


def _secret(source: Together) -> tuple[object, ...]:
    secrets = tuple(_of(one).secret(one) for one in source.sources)
    return ("together", *secrets) if all(secrets) else ()


def _require_usable(source: Together) -> None:
    for one in source.sources:
        _of(one).require_usable(one)


def _previous(source: Together) -> Source | None:
    """Return the source with the previous values of all parts that keep one; mixtures of values are not tried."""
    staged = [(_of(one).previous(one), one) for one in source.sources]
    if not any(before for before, _ in staged):
        return None
    return Together(tuple(before or one for before, one in staged))


def _ends(source: Together) -> datetime.datetime | None:
    return min((end for one in source.sources if (end := _of(one).ends(one))), default=None)


def _decode(source: Together, _: memoryview) -> Passphrase:
    names = " and ".join(one.provider for one in source.sources)
    raise KeyFetchError(f"one value cannot stand for those of {names}, which are needed together")


def complaint(names: Sequence[str]) -> str:
    """Return what is wrong with the tables below `[encrypt.together]`, "" for nothing."""
    if len(names) < 2:
        return "needs the tables of two providers or more: none of their values opens the volume alone"
    return ""


def _of(source: Source) -> Provider:
    from cryptpilot_boot.providers import table  # imported here, since it imports this file

    return table.of(source)


PROVIDER = Provider(
    make=Together,
    keys={},
    prepare=_prepare,
    describe=_describe,
    needs=_needs,
    secret=_secret,
    require_usable=_require_usable,
    previous=_previous,
    ends=_ends,
    decode=_decode,
    caution=_caution,
    seal=_seal,
    parts=True,
)

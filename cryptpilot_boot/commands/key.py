"""How a command asks for the keys of its volumes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cryptpilot_boot import keys
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.keys.asking import Terms, question
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.keys import Passphrase
    from cryptpilot_boot.keys.race import Asked


@contextlib.contextmanager
def terms_of(config: Config) -> Iterator[Terms]:
    """Share the answers of key providers among the volumes of a command; each question has `[boot] timeout`."""
    with keys.Answers() as answers:
        yield Terms(answers, config.boot.timeout)


def asked_of(one: Volume, number: int, terms: Terms) -> Asked:
    """Return what asks one of the volume's sources; where it has several, an error says which one failed."""
    return _naming(one, number, question(one, one.sources[number], terms))


def new_key_of(one: Volume, number: int, terms: Terms) -> Asked:
    """Return what gives the passphrase for a new key slot of one of the volume's sources.

    It is made now where the source keeps its secret in the volume's header, and asked for as by `asked_of` elsewhere.
    """
    source = one.sources[number]
    if not table.is_on_device(source):
        return asked_of(one, number, terms)

    def make() -> Passphrase:
        made = keys.seal(source, lambda other: question(one, other, terms)())
        if made is None:
            raise KeyFetchError("nothing makes a key that can be kept in the header", "please report this")
        return made

    return _naming(one, number, make)


def _naming(one: Volume, number: int, ask: Asked) -> Asked:
    """Return what asks as `ask` does. If a volume has several sources, its errors say which one failed."""

    def ask_then() -> Passphrase:
        try:
            return ask()
        except KeyFetchError as error:
            raise type(error)(f"{named(one, number)}: {error.what}", error.hint) from None

    return ask_then if one.fallbacks else ask

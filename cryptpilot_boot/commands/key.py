"""Getting a volume's passphrase for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import keys
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.keys import asking
from cryptpilot_boot.keys.sources import named
from cryptpilot_boot.providers import table
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config, Encrypt, Volume
    from cryptpilot_boot.keys import Passphrase
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.sources import Secret


def passphrase_of(one: Volume, config: Config, answers: keys.Answers) -> Secret:
    """Return what asks the volume's key provider, for as long as `[boot] timeout` allows, or all its sources.

    answers: of the same command for other volumes, of which one may have asked already.
    """
    return asking.secret_of(one, _terms(config, answers))


def previous_of(one: Volume, config: Config, answers: keys.Answers) -> Asked | None:
    """Return what asks for the value that the volume's secret had before it was rotated; see `keys.asking`."""
    return asking.previous_of(one, _terms(config, answers))


def asked_of(one: Volume, number: int, config: Config, answers: keys.Answers) -> Asked:
    """Return what asks one of the volume's sources; where it has several, an error says which one failed."""
    ask = passphrase_from(one, one.sources[number], config, answers)
    return _naming(one, number, ask) if one.fallbacks else ask


def new_key_of(one: Volume, number: int, config: Config, answers: keys.Answers) -> Asked:
    """Return what gives the passphrase for a new key slot of one of the volume's sources.

    It is made now where the source keeps its secret in the volume's header, and asked for as by `asked_of` elsewhere.
    """
    source = one.sources[number]
    if not table.is_on_device(source):
        return asked_of(one, number, config, answers)

    def make() -> Passphrase:
        made = keys.seal(source, lambda other: passphrase_from(one, other, config, answers)())
        if made is None:
            raise KeyFetchError("nothing makes a key that can be kept in the header", "please report this")
        return made

    return _naming(one, number, make) if one.fallbacks else make


def _naming(one: Volume, number: int, ask: Asked) -> Asked:
    def ask_then() -> Passphrase:
        try:
            return ask()
        except KeyFetchError as error:
            raise type(error)(f"{named(one, number)}: {error.what}", error.hint) from None

    return ask_then


def passphrase_from(one: Volume, source: Encrypt, config: Config, answers: keys.Answers) -> Asked:
    """Return what asks one of the volume's sources, as `passphrase_of` does."""
    return asking.Single(one, source, _terms(config, answers))


def previous_from(one: Volume, source: Encrypt, config: Config, answers: keys.Answers) -> Asked | None:
    """Return what asks one of the volume's sources for the previous value of its secret; None if it keeps none."""
    return asking.previous_from(one, source, _terms(config, answers))


def _terms(config: Config, answers: keys.Answers) -> asking.Terms:
    return asking.Terms(answers, lambda: Deadline(config.boot.timeout))

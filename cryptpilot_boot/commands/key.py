"""Getting a volume's passphrase for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log
from cryptpilot_boot.system import process
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config, Encrypt, Volume
    from cryptpilot_boot.keys import Passphrase


def passphrase_of(one: Volume, config: Config, answers: keys.Answers) -> Callable[[], Passphrase]:
    """Return what asks the volume's key provider, for as long as `[boot] timeout` allows.

    answers: of the same command for other volumes, of which one may have asked already.
    """
    return _asking(one, one.encrypt, config, answers)


def previous_of(one: Volume, config: Config, answers: keys.Answers) -> Callable[[], Passphrase] | None:
    """Return what asks for the value that the volume's secret had before it was rotated; None if nobody keeps that."""
    previous = keys.previous(one.encrypt)
    return _asking(one, previous, config, answers) if previous else None


def _asking(one: Volume, encrypt: Encrypt, config: Config, answers: keys.Answers) -> Callable[[], Passphrase]:
    def ask() -> Passphrase:
        with log.timed(log.FETCH_KEY, one.volume, **keys.describe(encrypt)):
            process.lock_memory()
            prepared = keys.prepare(encrypt)
            return answers.ask(encrypt, prepared, Deadline(config.boot.timeout), one.volume)

    return ask

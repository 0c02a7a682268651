"""Getting a volume's passphrase for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log
from cryptpilot_boot.system import process
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.keys import Passphrase


def passphrase_of(one: Volume, config: Config, answers: keys.Answers) -> Callable[[], Passphrase]:
    """Return what asks the volume's key provider, for as long as `[boot] timeout` allows.

    answers: of the same command for other volumes, of which one may have asked already.
    """

    def ask() -> Passphrase:
        with log.timed(log.FETCH_KEY, one.volume, **keys.describe(one.encrypt)):
            process.lock_memory()
            prepared = keys.prepare(one.encrypt)
            return answers.ask(one.encrypt, prepared, Deadline(config.boot.timeout), one.volume)

    return ask

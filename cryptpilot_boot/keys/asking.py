"""Asking one source of a volume's key, for commands and for the boot alike; `keys.secret` asks all of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable, TypeVar, Union

from cryptpilot_boot import keys, log, tasks
from cryptpilot_boot.system import process
from cryptpilot_boot.system.run import raise_if_interrupted
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.config import Encrypt, Volume
    from cryptpilot_boot.keys.race import Asked

T = TypeVar("T")
Limit = Union[float, Deadline]
"""How long sources are asked: so many seconds for each question, or all of them until a deadline."""


@dataclasses.dataclass
class Terms:
    """How sources are asked.

    answers: shared by all volumes of a command or a stage. limit: of each question that begins; a stage may change it.
    """

    answers: keys.Answers
    limit: Limit

    def prepared(self, volume: Volume, source: Encrypt) -> Asked:
        """Do what needs no network, and return what asks. Raises KeyFetchError for unusable credentials."""
        process.lock_memory()
        ask = keys.prepare(source)
        return lambda: self.answers.ask(source, ask, self._deadline(), volume.volume)

    def _deadline(self) -> Deadline:
        return self.limit if isinstance(self.limit, Deadline) else Deadline(self.limit)


def question(volume: Volume, source: Encrypt, terms: Terms) -> Asked:
    """Return what asks one of the volume's sources, as a step of the task of the thread that calls it.

    Its caller wipes the passphrase. It raises KeyFetchError; Interrupted if the task was given up.
    """

    def ask() -> keys.Passphrase:
        with log.timed(log.FETCH_KEY, volume.volume, **keys.describe(source)):
            return terms.prepared(volume, source)()

    return lambda: as_task(ask, keys.Passphrase.wipe)


def as_task(ask: Callable[[], T], wipe: Callable[[T], object]) -> T:
    """Return what `ask` returns, in the phase ASKING of this thread's task.

    If the task was abandoned or this process interrupted meanwhile, wipe it and raise Interrupted.
    """
    found: list[T] = []
    try:
        with tasks.asking():
            found.append(ask())
            # the supervisor may not know of it yet
            raise_if_interrupted()
    except BaseException:
        for one in found:
            wipe(one)
        raise
    return found[0]

"""What gives a volume's key, for commands and for the boot alike.

`secret_of` makes it from the volume's sources: `prepare` does what needs no network, and an opening asks it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, tasks
from cryptpilot_boot.keys.sources import Beside, Sources, alone, inside, named
from cryptpilot_boot.system import process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Encrypt, Volume
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.system.wait import Deadline


@dataclasses.dataclass(frozen=True)
class Terms:
    """How sources are asked.

    answers: shared by all volumes of a command or a stage. deadline: returns by when an answer has to be there; called
    for each question. beside: what may cut the wait short.
    """

    answers: keys.Answers
    deadline: Callable[[], Deadline]
    beside: Beside = alone


class Single:
    """One source of a volume; a call asks it, and returns the passphrase, which is the caller's to wipe.

    opened_by, the `with` block: see `Sources`; there is nothing to tell apart, and nothing to give up.
    """

    opened_by: int | None = None

    def __init__(self, volume: Volume, source: Encrypt, terms: Terms) -> None:
        self._volume = volume
        self._source = source
        self._terms = terms
        self._ask: keys.Ask | None = None

    def prepare(self) -> None:
        """Do what needs no network; a call does it otherwise. Raises KeyFetchError for unusable credentials."""
        self._ask = self._ask or _prepared(self._source)

    def __call__(self) -> keys.Passphrase:
        """Ask. Raises KeyFetchError; Interrupted if the task of this thread was given up."""
        wipe = keys.Passphrase.wipe
        return inside(tasks.asking(), lambda: self._terms.beside(self._fetch, wipe), wipe)

    def __enter__(self) -> Single:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _fetch(self) -> keys.Passphrase:
        with log.timed(log.FETCH_KEY, self._volume.volume, **keys.describe(self._source)):
            ask = self._ask or _prepared(self._source)
            return self._terms.answers.ask(self._source, ask, self._terms.deadline(), self._volume.volume)


def secret_of(volume: Volume, terms: Terms) -> Single | Sources:
    """Return what gives the current value of a volume's secret, or for a volume with several sources all its keys."""
    if not volume.fallbacks:
        return Single(volume, volume.encrypt, terms)
    names = ", ".join(named(volume, number) for number in range(len(volume.sources)))

    def prepare(source: Encrypt) -> Asked:
        ask = _prepared(source)
        return lambda: terms.answers.ask(source, ask, terms.deadline(), volume.volume)

    @contextlib.contextmanager
    def within() -> Iterator[None]:
        with tasks.asking(), log.timed(log.FETCH_KEY, volume.volume, provider=names):
            yield

    return Sources(volume, prepare, within, terms.beside)


def previous_of(volume: Volume, terms: Terms) -> Single | None:
    """Return what gives the value that the secret had before it was rotated; None if nothing keeps that.

    None for a volume with several sources, too: what `secret_of` returns asks for these itself. It is prepared when it
    is asked: hardly any opening needs it, and what takes long was done for the current value.
    """
    return None if volume.fallbacks else previous_from(volume, volume.encrypt, terms)


def previous_from(volume: Volume, source: Encrypt, terms: Terms) -> Single | None:
    """Return what gives the previous value of the secret of one of the volume's sources; None if nothing keeps it."""
    previous = keys.previous(source)
    return Single(volume, previous, terms) if previous else None


def _prepared(source: Encrypt) -> keys.Ask:
    process.lock_memory()
    return keys.prepare(source)

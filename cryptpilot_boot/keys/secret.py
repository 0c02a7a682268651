"""The key of a volume, as what opens the volume is handed it: it gives one answer after another.

`Sources` are those of the volume's file. `Known` is a passphrase that is there already.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Protocol

from cryptpilot_boot import keys, log
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.keys import failures
from cryptpilot_boot.keys.asking import as_task
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.keys.race import Answer, Entrant, Race, Turn, Value
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.asking import Terms
    from cryptpilot_boot.passphrase import Passphrase


class Secret(Protocol):
    """What gives the key of a volume; a `with` block ends by wiping what was not taken."""

    def next(self) -> Answer:
        """Return the next answer, whose passphrase the caller wipes. Raises CryptpilotError if no answer is left."""

    def reject(self, answer: Answer, error: CryptpilotError) -> None:
        """Note that an answer does not open the volume, and why. Raises that if there is no other answer."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> None: ...


class Known:
    """A passphrase that is there already, and stays with its owner. It is the only answer."""

    def __init__(self, passphrase: Passphrase) -> None:
        self._passphrase = passphrase

    def next(self) -> Answer:
        """Return a copy of the passphrase."""
        return Answer(self._passphrase.copy())

    def reject(self, answer: Answer, error: CryptpilotError) -> None:  # noqa: ARG002 - there is one
        """Raise why the passphrase does not open the volume."""
        raise error

    def __enter__(self) -> Known:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Sources:
    """The sources of a volume's key, which are asked until an answer opens the volume.

    race: what they answer; a user who types the key takes part in it.
    """

    def __init__(self, volume: Volume, terms: Terms) -> None:
        self.race = Race()
        self._volume = volume
        self._terms = terms
        self._started = False

    def prepare(self) -> None:
        """Do what needs no network, ahead of the question; that of the first source is done when this returns.

        Raises CryptpilotError if that leaves no source to ask, and no user is asked for the key.
        """
        self._start(ahead=True)
        if self.race.failed and not self.race.key_expected:
            raise self._error()

    def next(self) -> Answer:
        """Wait for the next answer, whose passphrase the caller wipes.

        Raises CryptpilotError when there can be none, and Interrupted if the task of this thread was given up.
        """
        return as_task(self._answer, lambda answer: answer.passphrase.wipe())

    def reject(self, answer: Answer, error: CryptpilotError) -> None:
        """Note that an answer does not open the volume, and why. Raises the error of a key that was typed."""
        self.race.reject(answer, error)

    def ask_without_limit(self) -> None:
        """Let the questions that begin from now on have no limit."""
        self._terms.limit = Deadline(math.inf)

    def stop(self) -> None:
        """Stop asking, and wipe all answers that were not taken."""
        self.race.stop()

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, *, ahead: bool) -> None:
        if not self._started:
            self._started = True
            self.race.start([self._entrant(number) for number in range(len(self._volume.sources))], ahead=ahead)

    def _answer(self) -> Answer:
        answer = None if self.race.failed else self._from_sources()
        answer = answer or self.race.typed()
        if answer is None:
            raise self._error()
        return answer

    def _from_sources(self) -> Answer | None:
        """Wait until a source answers, or a user types the key; None if all sources have failed and a user may yet."""
        try:
            with log.timed(log.FETCH_KEY, self._volume.volume, **self._facts()) as facts:
                self._start(ahead=False)
                while isinstance(found := self.race.next(), Turn):
                    self._tell(found)
                if found is None:
                    raise self._error()
                facts.update(self._about(found))
                return found
        except Interrupted:
            raise
        except CryptpilotError:
            if self.race.key_expected:
                return None
            raise

    def _entrant(self, number: int) -> Entrant:
        source = self._volume.sources[number]
        previous = keys.previous(source)
        return Entrant(
            prepare=functools.partial(self._terms.prepared, self._volume, source),
            after=self._volume.fallbacks[number - 1].after if number else 0,
            # few openings need it, and the slow part is done for the current value
            previous=functools.partial(self._terms.prepared, self._volume, previous) if previous else None,
        )

    def _error(self) -> CryptpilotError:
        return failures.of_all(self._volume, self.race.failures)

    def _facts(self) -> dict[str, str]:
        if self._volume.fallbacks:
            return {"provider": ", ".join(named(self._volume, number) for number in range(len(self._volume.sources)))}
        source = self._volume.encrypt
        return keys.describe((keys.previous(source) if self.race.useless else None) or source)

    def _about(self, answer: Answer) -> dict[str, str]:
        """Return what the log says of an answer that is not the current value of a secret."""
        if answer.value is Value.CURRENT:
            return {}
        why = {"current": self.race.useless[answer.source].what} if answer.source is not None else {}
        return {"value": answer.value.name.lower(), **why}

    def _tell(self, turn: Turn) -> None:
        """Say why a further source is asked."""
        if turn.source == 0:
            return
        before = range(turn.source)
        reasons = [
            f"{self._volume.source_name(number)}: {failures.of_source(self._volume, turn.failures[number]).what}"
            for number in before
            if number in turn.failures
        ]
        silent = len(before) - len(reasons)
        if silent:
            reasons.append(f"no answer of {'the source' if silent == 1 else 'those'} before it yet")
        notice = f"{self._volume.volume}: {'; '.join(reasons)}; asking {named(self._volume, turn.source)} too"
        log.emit(log.FETCH_KEY, volume=self._volume.volume, facts={"source": turn.source, "notice": notice})

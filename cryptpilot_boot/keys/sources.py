"""The sources of one volume's key, ready to be asked: what a volume with fallbacks is opened by."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, Optional, Protocol, TypeVar, Union

from cryptpilot_boot import log
from cryptpilot_boot.errors import NoValue
from cryptpilot_boot.keys.race import Asked, Entrant, Race
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.providers.provider import Source

T = TypeVar("T")
Prepare = Callable[["Source"], Asked]
"""Does what needs no network, and returns what asks a source as long as there is time."""
Found = Optional["tuple[int, Asked]"]
"""What `Race.next` returns."""
Within = Callable[[], "contextlib.AbstractContextManager[object]"]


class Beside(Protocol):
    """Returns what `ask` does, unless something else comes before: then it raises, and what comes too late is wiped."""

    def __call__(self, ask: Callable[[], T], wipe: Callable[[T], object]) -> T:
        """Do that."""


def alone(ask: Callable[[], T], wipe: Callable[[T], object]) -> T:  # noqa: ARG001 - nothing comes too late
    """Return what `ask` does, whatever else comes."""
    return ask()


def inside(context: contextlib.AbstractContextManager[object], ask: Callable[[], T], wipe: Callable[[T], object]) -> T:
    """Return what `ask` does in a context; where leaving that raises, what was asked for in vain is wiped."""
    found: list[T] = []
    try:
        with context:
            found.append(ask())
    except BaseException:
        for one in found:
            wipe(one)
        raise
    return found[0]


class Sources:
    """What asks all sources of a volume. opened_by: the number of the one whose key opened it, None so far.

    prepare: see Prepare. within: waiting for an answer runs in it, a step that asks for a key; it may raise in the end.
    beside: by what the waiting may be cut short.
    """

    def __init__(self, volume: Volume, prepare: Prepare, within: Within, beside: Beside = alone) -> None:
        self._volume = volume
        self._prepare = prepare
        self._within = within
        self._beside = beside
        self._race: Race | None = None
        self.opened_by: int | None = None

    def prepare(self, *, ahead: bool = True) -> None:
        """Do what needs no network, of which the first source's part is done when this returns. ahead: see `Race`."""
        if self._race is None:
            entrants = [self._entrant(number) for number in range(len(self._volume.sources))]
            self._race = Race(entrants, self._tell, ahead=ahead)

    @contextlib.contextmanager
    def race(self) -> Iterator[Race]:
        """Give what asks them. Afterwards none is asked any more."""
        self.prepare(ahead=False)
        race, self._race = self._race, None
        if race is not None:
            with race:
                yield race

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what was prepared and never asked."""
        if self._race is not None:
            with self._race:
                self._race = None

    def wait(self, race: Race) -> Found:
        """Return what `Race.next` does."""
        return inside(self._within(), lambda: self._beside(race.next, _wipe), _wipe)

    def previous(self, number: int) -> Asked | None:
        """Return what asks for the value that a source's secret had before it was rotated; None if nobody keeps it."""
        source = self._volume.sources[number]
        previous = table.of(source).previous(source)
        if previous is None:
            return None
        within, prepare, beside = self._within, self._prepare, self._beside

        def ask() -> Passphrase:
            # prepared only now: hardly any opening comes here, and what takes long was done for the current value
            return inside(within(), lambda: beside(lambda: prepare(previous)(), Passphrase.wipe), Passphrase.wipe)

        return ask

    def _entrant(self, number: int) -> Entrant:
        source = self._volume.sources[number]
        return Entrant(
            prepare=lambda: self._prepare(source),
            after=self._volume.fallbacks[number - 1].after if number else 0,
            passes_on=table.of(source).previous(source) is not None,
        )

    def _tell(self, number: int, errors: dict[int, str]) -> None:
        if number == 0:
            return
        before = self._volume.sources[:number]
        reasons = [f"{self._volume.source_name(failed)}: {what}" for failed, what in errors.items() if failed < number]
        silent = len(before) - len(reasons)
        if silent:
            reasons.append(f"no answer of {'the source' if silent == 1 else 'those'} before it yet")
        notice = f"{self._volume.volume}: {'; '.join(reasons)}; asking {named(self._volume, number)} too"
        log.emit(log.FETCH_KEY, volume=self._volume.volume, facts={"source": number, "notice": notice})


def _wipe(found: Found) -> None:
    if found is not None:
        with contextlib.suppress(NoValue):
            found[1]().wipe()


Secret = Union[Asked, Sources]
"""What gives a volume's key: a question to its one source, or all its sources."""


def named(volume: Volume, number: int) -> str:
    """Name a source for a person: as on the command line, and what it is."""
    source = volume.sources[number]
    return f"{volume.source_name(number)} ({table.of(source).describe(source)['provider']})"

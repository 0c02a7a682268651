"""All sources of one volume's key, ready to be asked: what opens a volume with fallbacks."""

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
"""Does what needs no network, and returns what asks a source until the deadline."""
Found = Optional["tuple[int, Asked]"]
"""What `Race.next` returns."""
Within = Callable[[], "contextlib.AbstractContextManager[object]"]


class Beside(Protocol):
    """Returns what `ask` returns, or raises if something else ends the waiting; a later answer is wiped."""

    def __call__(self, ask: Callable[[], T], wipe: Callable[[T], object]) -> T:
        """Ask, or raise."""


def alone(ask: Callable[[], T], wipe: Callable[[T], object]) -> T:  # noqa: ARG001 - nothing comes too late
    """Return what `ask` returns: nothing ends the waiting."""
    return ask()


def inside(context: contextlib.AbstractContextManager[object], ask: Callable[[], T], wipe: Callable[[T], object]) -> T:
    """Return what `ask` returns, called in a context. If leaving the context raises, the answer is wiped."""
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
    """All sources of a volume, and how to ask them. opened_by: the number of the source whose key opened it, or None.

    prepare: see Prepare. within: returns a context for each wait, such as the step that asks for a key; leaving it may
    raise. beside: calls what waits, and may end that early.
    """

    def __init__(self, volume: Volume, prepare: Prepare, within: Within, beside: Beside = alone) -> None:
        self._volume = volume
        self._prepare = prepare
        self._within = within
        self._beside = beside
        self._race: Race | None = None
        self.opened_by: int | None = None

    def prepare(self, *, ahead: bool = True) -> None:
        """Do what needs no network; that of the first source is done when this returns. ahead: see `Race`."""
        if self._race is None:
            entrants = [self._entrant(number) for number in range(len(self._volume.sources))]
            self._race = Race(entrants, self._tell, ahead=ahead)

    @contextlib.contextmanager
    def race(self) -> Iterator[Race]:
        """Return the race that asks the sources. After the `with` block none is asked."""
        self.prepare(ahead=False)
        race, self._race = self._race, None
        if race is not None:
            with race:
                yield race

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        """Give up a race that was prepared and not started."""
        if self._race is not None:
            with self._race:
                self._race = None

    def wait(self, race: Race) -> Found:
        """Return what `Race.next` does."""
        return inside(self._within(), lambda: self._beside(race.next, _wipe), _wipe)

    def previous(self, number: int) -> Asked | None:
        """Return what asks for the value before the rotation of a source's secret; None if the provider keeps none."""
        source = self._volume.sources[number]
        previous = table.of(source).previous(source)
        if previous is None:
            return None
        within, prepare, beside = self._within, self._prepare, self._beside

        def ask() -> Passphrase:
            # prepared now, not ahead: few openings need it, and the slow part was done for the current value
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
"""What gives the key of a volume: a function that asks its one source, or all its sources."""


def named(volume: Volume, number: int) -> str:
    """Return the name of a source for a person: that of the command line, and its provider."""
    source = volume.sources[number]
    return f"{volume.source_name(number)} ({table.of(source).describe(source)['provider']})"

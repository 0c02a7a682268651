"""Several sources of a key: which is asked when, and whose answer is taken."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.errors import Interrupted, KeyFetchError, NoValue
from cryptpilot_boot.keys.race import Entrant, Race, due
from cryptpilot_boot.passphrase import Passphrase

if TYPE_CHECKING:
    from cryptpilot_boot.keys.race import Asked

NOW = 0.0  # a turn that has come, whatever the clock says


@pytest.mark.parametrize(
    ("asked", "over", "turn"),
    [
        ([None, None, None], [False, False, False], (0, NOW)),
        ([100.0, None, None], [False, False, False], (1, 115.0)),
        ([100.0, None, None], [True, False, False], (1, NOW)),
        ([100.0, 115.0, None], [False, False, False], (2, 120.0)),
        ([100.0, 103.0, None], [True, False, False], (2, 108.0)),
        # the second has failed, the first has not: it has been silent since it was asked
        ([100.0, 115.0, None], [False, True, False], (2, 105.0)),
        ([100.0, 115.0, None], [True, False, False], (2, 120.0)),
        ([100.0, 115.0, None], [True, True, False], (2, NOW)),
        # what cannot be prepared is passed over, and holds nobody up
        ([100.0, None, None], [False, True, False], (2, 105.0)),
        ([None, None, None], [True, True, False], (2, NOW)),
        ([100.0, 115.0, 120.0], [False, True, False], None),
        ([100.0, None, None], [False, True, True], None),
    ],
)
def test_a_source_has_its_turn_when_those_before_it_failed_or_were_silent(
    asked: list[float | None], over: list[bool], turn: tuple[int, float] | None
) -> None:
    assert due(asked, over, [0, 15, 5]) == turn


class Sources:
    """Sources that answer when they are let; each notes that it was asked."""

    def __init__(self, count: int) -> None:
        self.asked: list[int] = []
        self.let = [threading.Event() for _ in range(count)]
        self.made: list[Passphrase] = []
        self.answers: list[Callable[[int], Passphrase]] = [self.give] * count

    def give(self, number: int) -> Passphrase:
        made = Passphrase(f"key {number}".encode(), strong=True)
        self.made.append(made)
        return made

    def prepare(self, number: int) -> Callable[[], Asked]:
        def ask() -> Passphrase:
            self.asked.append(number)
            assert self.let[number].wait(20)
            return self.answers[number](number)

        return lambda: ask

    def entrants(self, *after: float, passes_on: bool = False) -> list[Entrant]:
        return [Entrant(self.prepare(number), seconds, passes_on) for number, seconds in enumerate(after)]


def taken(race: Race) -> tuple[int, bytes]:
    found = race.next()
    assert found is not None
    with found[1]() as passphrase:
        return found[0], bytes(passphrase.reveal())


def refuse(_: int) -> Passphrase:
    raise KeyFetchError("refused")


def test_the_first_that_is_well_is_asked_alone() -> None:
    sources = Sources(3)
    sources.let[0].set()
    with Race(sources.entrants(0, 15, 15)) as race:
        assert taken(race) == (0, b"key 0")
    assert sources.asked == [0]


def test_one_that_has_no_turn_is_prepared_ahead_or_not_at_all() -> None:
    for ahead in (True, False):
        sources = Sources(2)
        sources.let[0].set()
        entrants = sources.entrants(0, 600)
        prepared = threading.Event()

        def prepare(prepared: threading.Event = prepared) -> Asked:
            prepared.set()
            return lambda: Passphrase(b"", strong=True)

        entrants[1] = Entrant(prepare, 600)
        with Race(entrants, ahead=ahead) as race:
            assert prepared.wait(20 if ahead else 0.2) == ahead
            assert taken(race) == (0, b"key 0")
        assert prepared.wait(0.2) == ahead


def test_the_next_is_asked_at_once_when_one_fails_for_good() -> None:
    sources = Sources(3)
    sources.answers[0] = sources.answers[1] = refuse
    for event in sources.let:
        event.set()
    told: list[tuple[int, dict[int, str]]] = []
    began = time.monotonic()
    with Race(sources.entrants(0, 600, 600), lambda number, errors: told.append((number, errors))) as race:
        assert taken(race) == (2, b"key 2")
    assert time.monotonic() - began < 10
    assert sources.asked == [0, 1, 2]
    assert told == [(0, {}), (1, {0: "refused"}), (2, {0: "refused", 1: "refused"})]


def test_silence_has_the_next_asked_and_the_first_is_not_given_up() -> None:
    sources = Sources(2)
    sources.let[1].set()
    with Race(sources.entrants(0, 0.2)) as race:
        assert taken(race) == (1, b"key 1")
        race.fail(1, KeyFetchError("opens nothing"))
        sources.let[0].set()
        assert taken(race) == (0, b"key 0")
        assert list(race.errors) == [1]


def test_what_fails_while_it_is_prepared_is_passed_over() -> None:
    def fail() -> Asked:
        raise KeyFetchError("cannot be opened")

    sources = Sources(3)
    sources.let[2].set()
    entrants = sources.entrants(0, 600, 600)
    entrants[0] = entrants[1] = Entrant(fail, 600)
    with Race(entrants) as race:
        assert taken(race) == (2, b"key 2")
        assert {number: error.what for number, error in race.errors.items()} == {
            0: "cannot be opened",
            1: "cannot be opened",
        }


def stumble(_: int) -> Passphrase:
    raise ZeroDivisionError


def test_a_bug_in_one_source_is_its_own() -> None:
    sources = Sources(2)
    sources.answers[0] = stumble
    for event in sources.let:
        event.set()
    with Race(sources.entrants(0, 600)) as race:
        assert taken(race) == (1, b"key 1")
        assert "ZeroDivisionError" in race.errors[0].what


def test_there_is_an_end_when_all_have_failed() -> None:
    sources = Sources(2)
    sources.answers = [refuse, refuse]
    for event in sources.let:
        event.set()
    with Race(sources.entrants(0, 600)) as race:
        assert race.next() is None
        assert list(race.errors) == [0, 1]


def test_a_source_without_a_current_value_may_have_a_previous_one() -> None:
    def none(_: int) -> Passphrase:
        raise NoValue("it has no current value")

    for passes_on in (True, False):
        sources = Sources(1)
        sources.answers[0] = none
        sources.let[0].set()
        with Race(sources.entrants(0, passes_on=passes_on)) as race:
            found = race.next()
            assert (found is not None) == passes_on
            if found:
                with pytest.raises(NoValue):
                    found[1]()


def test_what_nobody_takes_any_more_is_wiped() -> None:
    sources = Sources(2)
    sources.let[0].set()
    with Race(sources.entrants(0, 0)) as race:
        assert taken(race) == (0, b"key 0")
        wait_until(lambda: sources.asked == [0, 1] or sources.asked == [1, 0])
    sources.let[1].set()
    wait_until(lambda: len(sources.made) == 2 and not any(bytes(sources.made[1].reveal())))


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("while_asked", [False, True])
def test_once_the_process_is_to_end_no_other_source_is_asked(while_asked: bool) -> None:
    def end(*_: object) -> Passphrase:
        raise Interrupted

    sources = Sources(2)
    sources.answers[0] = end
    for let in sources.let:
        let.set()
    first, second = sources.entrants(0, 600)
    with Race([first if while_asked else Entrant(end), second]) as race, pytest.raises(Interrupted):  # type: ignore[arg-type]
        race.next()
    assert 1 not in sources.asked

"""Several sources of a key: which is asked when, and whose answer is taken."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.errors import Interrupted, KeyFetchError, NoValue, WrongSecret
from cryptpilot_boot.keys.race import Answer, Entrant, Race, Turn, Value, due
from cryptpilot_boot.passphrase import Passphrase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    def entrants(self, *after: float) -> list[Entrant]:
        return [Entrant(self.prepare(number), seconds) for number, seconds in enumerate(after)]


@contextlib.contextmanager
def racing(entrants: Sequence[Entrant], *, ahead: bool = True) -> Iterator[Race]:
    race = Race()
    race.start(entrants, ahead=ahead)
    try:
        yield race
    finally:
        race.stop()


def answer_of(race: Race, turns: list[Turn] | None = None) -> Answer | None:
    while isinstance(found := race.next(), Turn):
        if turns is not None:
            turns.append(found)
    return found


def taken(race: Race) -> tuple[int | None, bytes]:
    found = answer_of(race)
    assert found is not None
    with found.passphrase as passphrase:
        return found.source, bytes(passphrase.reveal())


def errors_of(race: Race) -> dict[int, str]:
    return {number: failure.last.what for number, failure in race.failures.items()}


def refuse(_: int) -> Passphrase:
    raise KeyFetchError("refused")


def test_the_first_that_is_well_is_asked_alone() -> None:
    sources = Sources(3)
    sources.let[0].set()
    with racing(sources.entrants(0, 15, 15)) as race:
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
        with racing(entrants, ahead=ahead) as race:
            assert prepared.wait(20 if ahead else 0.2) == ahead
            assert taken(race) == (0, b"key 0")
        assert prepared.wait(0.2) == ahead


def test_the_next_is_asked_at_once_when_one_fails_for_good() -> None:
    sources = Sources(3)
    sources.answers[0] = sources.answers[1] = refuse
    for event in sources.let:
        event.set()
    turns: list[Turn] = []
    began = time.monotonic()
    with racing(sources.entrants(0, 600, 600)) as race:
        found = answer_of(race, turns)
        assert found is not None
        assert (found.source, bytes(found.passphrase.reveal())) == (2, b"key 2")
    assert time.monotonic() - began < 10
    assert sources.asked == [0, 1, 2]
    assert [(turn.source, {number: one.last.what for number, one in turn.failures.items()}) for turn in turns] == [
        (0, {}),
        (1, {0: "refused"}),
        (2, {0: "refused", 1: "refused"}),
    ]


def test_silence_has_the_next_asked_and_the_first_is_not_given_up() -> None:
    sources = Sources(2)
    sources.let[1].set()
    with racing(sources.entrants(0, 0.2)) as race:
        found = answer_of(race)
        assert found is not None
        assert found.source == 1
        race.reject(found, WrongSecret("opens nothing"))
        sources.let[0].set()
        assert taken(race) == (0, b"key 0")
        assert list(race.failures) == [1]


def test_what_fails_while_it_is_prepared_is_passed_over() -> None:
    def fail() -> Asked:
        raise KeyFetchError("cannot be opened")

    sources = Sources(3)
    sources.let[2].set()
    entrants = sources.entrants(0, 600, 600)
    entrants[0] = entrants[1] = Entrant(fail, 600)
    with racing(entrants) as race:
        assert taken(race) == (2, b"key 2")
        assert errors_of(race) == {0: "cannot be opened", 1: "cannot be opened"}


def stumble(_: int) -> Passphrase:
    raise ZeroDivisionError


def test_a_bug_in_one_source_is_its_own() -> None:
    sources = Sources(2)
    sources.answers[0] = stumble
    for event in sources.let:
        event.set()
    with racing(sources.entrants(0, 600)) as race:
        assert taken(race) == (1, b"key 1")
        assert "ZeroDivisionError" in errors_of(race)[0]


def test_there_is_an_end_when_all_have_failed() -> None:
    sources = Sources(2)
    sources.answers = [refuse, refuse]
    for event in sources.let:
        event.set()
    with racing(sources.entrants(0, 600)) as race:
        assert answer_of(race) is None
        assert race.failed
        assert list(race.failures) == [0, 1]


def nothing(_: int = 0) -> Passphrase:
    raise NoValue("it has no current value")


@pytest.mark.parametrize("current", ["wrong", "none", "refused"])
def test_a_source_whose_current_value_opens_nothing_is_asked_for_the_previous_one(current: str) -> None:
    """Before the next source has its turn; not where the value could not be had at all."""
    sources = Sources(2)
    answers: dict[str, Callable[[int], Passphrase]] = {"wrong": sources.give, "none": nothing, "refused": refuse}
    sources.answers[0] = answers[current]
    for event in sources.let:
        event.set()
    first, second = sources.entrants(0, 600)
    entrants = [dataclasses.replace(first, previous=lambda: lambda: Passphrase(b"before", strong=True)), second]
    with racing(entrants) as race:
        if current == "wrong":
            found = answer_of(race)
            assert found is not None
            assert (found.source, found.value) == (0, Value.CURRENT)
            race.reject(found, WrongSecret("opens nothing"))
        found = answer_of(race)
        assert found is not None
        assert (found.source, found.value) == ((1, Value.CURRENT) if current == "refused" else (0, Value.PREVIOUS))
        assert bytes(found.passphrase.reveal()) == (b"key 1" if current == "refused" else b"before")


@pytest.mark.parametrize("number", [0, 1])
def test_a_source_that_has_no_value_when_it_is_prepared_has_failed(number: int) -> None:
    """Also one that keeps a previous value: nothing would ask for it."""
    sources = Sources(2)
    sources.answers = [refuse, refuse]
    for event in sources.let:
        event.set()
    entrants = sources.entrants(0, 600)
    entrants[number] = Entrant(nothing, previous=sources.prepare(number))  # type: ignore[arg-type]
    found: list[Answer | None] = []
    with racing(entrants) as race:
        waiting = threading.Thread(target=lambda: found.append(answer_of(race)), daemon=True)
        waiting.start()
        waiting.join(20)
        assert found == [None]
        assert errors_of(race)[number] == "it has no current value"


@pytest.mark.parametrize("previous", ["wrong", "refused"])
def test_a_source_has_failed_when_its_previous_value_does_not_help(previous: str) -> None:
    sources = Sources(1)
    sources.let[0].set()
    (first,) = sources.entrants(0)
    before = {"wrong": sources.give, "refused": refuse}[previous]
    with racing([dataclasses.replace(first, previous=lambda: lambda: before(9))]) as race:
        found = answer_of(race)
        assert found is not None
        race.reject(found, WrongSecret("opens nothing"))
        assert not race.failed
        found = answer_of(race)
        assert (found is None) == (previous == "refused")
        if found is not None:
            race.reject(found, WrongSecret("nor does this"))
        assert race.failed
        failure = race.failures[0]
        assert failure.current.what == "opens nothing"
        assert failure.last.what == ("nor does this" if previous == "wrong" else "refused")


def test_a_source_without_a_previous_value_has_failed_at_once() -> None:
    sources = Sources(1)
    sources.let[0].set()
    with racing(sources.entrants(0)) as race:
        found = answer_of(race)
        assert found is not None
        race.reject(found, WrongSecret("opens nothing"))
        assert race.failed


# --- a key that is typed


def test_a_typed_key_is_one_more_answer() -> None:
    with racing(Sources(1).entrants(0)) as race:
        race.expect_key()
        race.offer(Passphrase(b"typed", strong=False))
        found = answer_of(race)
        assert found is not None
        assert (found.source, found.value, bytes(found.passphrase.reveal())) == (None, Value.TYPED, b"typed")
        with pytest.raises(WrongSecret):
            race.reject(found, WrongSecret("opens nothing"))


def test_a_typed_key_is_waited_for_when_all_sources_have_failed() -> None:
    sources = Sources(1)
    sources.answers[0] = refuse
    sources.let[0].set()
    with racing(sources.entrants(0)) as race:
        race.expect_key()
        assert answer_of(race) is None
        threading.Timer(0.2, race.offer, [Passphrase(b"typed", strong=False)]).start()
        found = race.typed()
        assert found is not None
        assert found.value is Value.TYPED
        threading.Timer(0.2, race.expect_no_key).start()
        assert race.typed() is None


def test_a_key_that_is_typed_too_late_is_wiped() -> None:
    key, late = (Passphrase(b"typed", strong=False) for _ in range(2))
    with racing(Sources(1).entrants(0)) as race:
        race.offer(key)
    race.offer(late)
    assert not any(key.reveal())
    assert not any(late.reveal())


def test_what_nobody_takes_any_more_is_wiped() -> None:
    sources = Sources(2)
    sources.let[0].set()
    with racing(sources.entrants(0, 0)) as race:
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
    with racing([first if while_asked else Entrant(end), second]) as race, pytest.raises(Interrupted):  # type: ignore[arg-type]
        answer_of(race)
    assert 1 not in sources.asked

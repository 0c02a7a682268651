"""Tasks side by side: which may be given up, and what they do then."""

from __future__ import annotations

import threading
from typing import Callable

import pytest

from cryptpilot_boot import log, tasks
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.tasks import Crew, Phase

LONG = 30.0
"""Seconds: what ends within them did not end by itself, and what does not end within them hangs."""


class Gate:
    """Where the work of a task stands still until a test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def stop_here(self) -> None:
        self._reached.set()
        assert self._open.wait(LONG)

    def reached(self) -> None:
        assert self._reached.wait(LONG)

    def go_on(self) -> None:
        self._open.set()


def ended(crew: Crew[str]) -> str | CryptpilotError:
    """Return the result of the only task."""
    (task,) = crew.tasks.values()
    with crew.changed:
        assert crew.changed.wait_for(lambda: task.phase is Phase.DONE, LONG)
    return task.result


def asks(gate: Gate, changed: list[str]) -> Callable[[], str]:
    def work() -> str:
        tasks.prepared()
        with tasks.asking():
            gate.stop_here()
        changed.append("the device")
        return "opened"

    return work


def test_a_task_goes_through_its_phases_and_returns_its_result() -> None:
    crew: Crew[str] = Crew("report it")
    gates = [Gate() for _ in range(4)]

    def work() -> str:
        gates[0].stop_here()
        tasks.prepared()
        gates[1].stop_here()
        with tasks.asking():
            gates[2].stop_here()
        gates[3].stop_here()
        return "opened"

    crew.start("a", work)
    for gate, phase in zip(gates, (Phase.PREPARING, Phase.WAITING, Phase.ASKING, Phase.CHANGING)):
        gate.reached()
        assert [task.volume for task in crew.in_phase(phase)] == ["a"]
        assert crew.has_to_finish is (phase is Phase.CHANGING)
        gate.go_on()
    assert ended(crew) == "opened"
    assert not crew.has_to_finish


@pytest.mark.parametrize("how", ["given up", "all ended"])
def test_nothing_is_changed_with_a_key_that_comes_too_late(how: str) -> None:
    crew: Crew[str] = Crew("report it")
    gate, changed = Gate(), list[str]()
    crew.start("a", asks(gate, changed))
    gate.reached()
    if how == "given up":
        crew.tasks["a"].give_up()
    else:
        crew.end()
    gate.go_on()
    assert isinstance(ended(crew), Interrupted)
    assert changed == []


def test_a_task_that_is_given_up_takes_no_other_with_it() -> None:
    crew: Crew[str] = Crew("report it")
    gate, changed = Gate(), list[str]()
    crew.start("a", asks(gate, changed))
    crew.start("b", asks(gate, changed))
    with crew.changed:
        assert crew.changed.wait_for(lambda: len(crew.in_phase(Phase.ASKING)) == 2, LONG)
    crew.tasks["a"].give_up()
    gate.go_on()
    with crew.changed:
        assert crew.changed.wait_for(lambda: len(crew.in_phase(Phase.DONE)) == 2, LONG)
    assert (type(crew.tasks["a"].result), crew.tasks["b"].result) == (Interrupted, "opened")


def test_a_question_without_an_answer_ends_as_one_with() -> None:
    """A user may be asked next, and the device is read again before."""
    crew: Crew[str] = Crew("report it")
    gate = Gate()

    def ask() -> None:
        raise CryptpilotError("no answer")

    def work() -> str:
        try:
            with tasks.asking():
                ask()
        except CryptpilotError:
            gate.stop_here()
        return "opened"

    crew.start("a", work)
    gate.reached()
    assert crew.in_phase(Phase.CHANGING)
    gate.go_on()
    assert ended(crew) == "opened"


def test_a_bug_becomes_an_error_that_says_what_to_do() -> None:
    crew: Crew[str] = Crew("report it")
    crew.start("a", lambda: str(1 // 0))
    error = ended(crew)
    assert isinstance(error, CryptpilotError)
    assert error.what.startswith("internal error: ZeroDivisionError at ")
    assert error.hint == "report it"


def test_a_task_overruns_by_the_step_it_is_in() -> None:
    crew: Crew[str] = Crew("report it")
    gates = [Gate(), Gate()]

    def work() -> str:
        for name, gate in zip(("format", "open"), gates):
            with log.timed(name, "a"):
                gate.stop_here()
        return "opened"

    crew.start("a", work)
    task = crew.tasks["a"]
    gates[0].reached()
    assert not task.overruns({"format": LONG}, 0)
    gates[0].go_on()
    gates[1].reached()
    assert task.overruns({"format": LONG}, 0)
    gates[1].go_on()
    assert ended(crew) == "opened"


def test_a_question_on_a_thread_that_is_no_tasks_only_asks() -> None:
    asked = []
    with tasks.asking():
        tasks.prepared()
        asked.append("a provider")
    assert asked == ["a provider"]

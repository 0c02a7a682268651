"""Several volumes side by side: an interruption at any moment ends it, and nothing that has begun is left half done."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cryptpilot_boot import log, tasks
from cryptpilot_boot.commands import each as module
from cryptpilot_boot.config import Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.system import run

if TYPE_CHECKING:
    from cryptpilot_boot.commands.each import Result

LONG = 30.0
"""Seconds no test is allowed to take."""
NAMES = "abc"


def each(work: Callable[[str], str]) -> tuple[object, dict[str, Result]]:
    """Do work to volumes; return how that ended, and what was reported. Fails when it does not end."""
    volumes = [Volume(name, f"/dev/{name}", Otp(), Path(f"{name}.toml")) for name in NAMES]
    reported: dict[str, Result] = {}
    ends: list[object] = []

    def call() -> None:
        try:
            ends.append(module.each(volumes, lambda one: work(one.volume), lambda one, what: keep(one.volume, what)))
        except BaseException as error:
            ends.append(error)

    def keep(name: str, what: Result) -> None:
        reported[name] = what

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(LONG)
    assert ends, "it does not end"
    return ends[0], reported


BEFORE, AFTER, ENDED = "before it begins", "after it began", "after it ended"


def interrupt_start(monkeypatch: pytest.MonkeyPatch, which: int, when: str) -> None:
    """Have a KeyboardInterrupt come where the thread of that number is started."""
    started = 0

    class Thread(threading.Thread):
        def start(self) -> None:
            nonlocal started
            started += 1
            if started <= which or when != BEFORE:
                super().start()
            if when == ENDED:
                self.join(LONG)
            if started > which:
                raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "threading", SimpleNamespace(**{**vars(threading), "Thread": Thread}))


def test_what_became_of_each_is_reported() -> None:
    error = CryptpilotError("it failed")

    def work(name: str) -> str:
        if name == "b":
            raise error
        return f"did {name}"

    assert each(work) == (False, {"a": "did a", "b": error, "c": "did c"})


@pytest.mark.parametrize("when", [BEFORE, AFTER, ENDED])
@pytest.mark.parametrize("which", range(len(NAMES)))
def test_what_has_begun_is_finished_where_the_start_of_another_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, which: int, when: str
) -> None:
    def work(name: str) -> str:
        time.sleep(0.5)  # or it could be finished without anybody waiting
        finished.append(name)
        return f"did {name}"

    finished: list[str] = []
    interrupt_start(monkeypatch, which, when)
    end, reported = each(work)
    assert isinstance(end, Interrupted)
    begun = NAMES[: which + (when != BEFORE)]
    assert sorted(finished) == list(begun)
    assert reported == {name: f"did {name}" for name in begun}


def test_what_has_begun_is_finished_where_a_thread_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(crew: tasks.Crew[str], name: str, *rest: Any) -> None:
        if name == "b":
            raise RuntimeError("can't start new thread")
        begin(crew, name, *rest)

    def work(name: str) -> str:
        time.sleep(0.5)
        finished.append(name)
        return f"did {name}"

    finished: list[str] = []
    begin = tasks.Crew.start
    monkeypatch.setattr(tasks.Crew, "start", start)
    end, reported = each(work)
    assert isinstance(end, RuntimeError)
    assert (finished, reported) == (["a"], {"a": "did a"})
    with pytest.raises(Interrupted):
        run.raise_if_interrupted()


def test_who_only_asks_for_a_key_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def work(name: str) -> str:
        with tasks.asking(), log.timed(log.FETCH_KEY, name):
            never.wait()
        return "did"

    interrupt_start(monkeypatch, 1, AFTER)
    end, reported = each(work)
    assert (isinstance(end, Interrupted), reported) == (True, {})

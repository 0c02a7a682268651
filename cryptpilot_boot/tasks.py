"""Tasks that run side by side, a thread each, and which of them may be abandoned.

A task that waits has changed nothing, and may be abandoned at any moment. A task that changes a disk is finished, or
ended in good order. The commands and both stages of the boot supervise their volumes by this.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from typing import TYPE_CHECKING, Callable, Generic, TypeVar

from cryptpilot_boot import steps
from cryptpilot_boot.errors import CryptpilotError, Interrupted, describe_bug

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")


class Phase(enum.Enum):
    """What a task does at this moment; in the first three it may be abandoned."""

    PREPARING = enum.auto()
    """It does what needs no device and no network."""
    WAITING = enum.auto()
    """It waits for its device, or reads it."""
    ASKING = enum.auto()
    """It asks for a key. If it is abandoned, it ends once it has an answer, and changes nothing."""
    CHANGING = enum.auto()
    """It may change its device: it has to be finished, or ended in good order."""
    DONE = enum.auto()
    """It has a result, and no longer runs."""


class Task(Generic[T]):
    """The work on one volume, on its own thread. phase: to be read with `Crew.changed` held."""

    def __init__(self, volume: str, phase: Phase, crew: Crew[T]) -> None:
        self.volume = volume
        self.phase = phase
        self._crew = crew
        self._given_up = False
        self._thread: threading.Thread | None = None
        self._results: list[T | CryptpilotError] = []
        self._timed: tuple[steps.Step | None, float] | None = None

    @property
    def result(self) -> T | CryptpilotError:
        """What the work of a task that is DONE returned, or its error; Interrupted if it was abandoned or ended."""
        return self._results[0]

    @property
    def has_to_be_finished(self) -> bool:
        """Whether something would stay half done if this process ended now."""
        # a KeyboardInterrupt may come before the thread has started
        return self.phase is Phase.CHANGING and self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], T], bug_hint: str) -> None:
        """Start the work. bug_hint: what a user is to do about an unforeseen exception."""

        def run() -> None:
            result: T | CryptpilotError
            _own.task = self
            try:
                result = work()
            except CryptpilotError as error:
                result = error
            except Exception as bug:
                result = CryptpilotError(describe_bug(bug), bug_hint)
            with self._crew.changed:
                self._results.append(result)
                self._enter(Phase.DONE)

        # daemon: a task that waits or hangs must not keep the process from ending
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def give_up(self) -> None:
        """Let the task change nothing after the phase ASKING."""
        with self._crew.changed:
            self._given_up = True

    def overruns(self, limits: Mapping[str, float], otherwise: float) -> bool:
        """Return whether the task has been in its present step for too long.

        limits: seconds by the name of a step, `otherwise` for all others. They count from the first call in that step.
        """
        step = steps.current(self.volume)
        if self._timed is None or self._timed[0] is not step:
            limit = limits.get(step.name, otherwise) if step else otherwise
            self._timed = (step, time.monotonic() + limit)
        return time.monotonic() >= self._timed[1]

    def prepared(self) -> None:
        """Leave the phase PREPARING."""
        with self._crew.changed:
            if self.phase is Phase.PREPARING:
                self._enter(Phase.WAITING)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Do what `asking` of this module does."""
        with self._crew.changed:
            self._enter(Phase.ASKING)
        try:
            yield
        finally:
            with self._crew.changed:
                if self._given_up or self._crew.ended:
                    self._enter(Phase.WAITING)
                    raise Interrupted
                # without an answer too: where a user is asked next, the device is read again before
                self._enter(Phase.CHANGING)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._crew.changed.notify_all()


class Crew(Generic[T]):
    """The tasks of one supervisor. changed: notified whenever a task enters another phase. ended: see `end`."""

    def __init__(self, bug_hint: str) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.ended = False
        self.tasks: dict[str, Task[T]] = {}
        self._bug_hint = bug_hint

    def start(self, volume: str, work: Callable[[], T], phase: Phase = Phase.PREPARING) -> None:
        """Start a task. phase: in which it begins."""
        self.tasks[volume] = task = Task(volume, phase, self)
        task.start(work, self._bug_hint)

    def end(self) -> None:
        """Let no task change anything after the phase ASKING, from now on."""
        with self.changed:
            self.ended = True

    def in_phase(self, *phases: Phase) -> list[Task[T]]:
        """Return the tasks in these phases."""
        with self.changed:
            return [task for task in self.tasks.values() if task.phase in phases]

    @property
    def has_to_finish(self) -> bool:
        """Whether something would stay half done if this process ended now."""
        with self.changed:
            return any(task.has_to_be_finished for task in self.tasks.values())


_own = threading.local()


def prepared() -> None:
    """Note that the task of this thread has left the phase PREPARING; on another thread, do nothing."""
    task: Task[object] | None = getattr(_own, "task", None)
    if task:
        task.prepared()


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Put the task of this thread into the phase ASKING while a `with` block runs, and into CHANGING after it.

    Raises Interrupted at the end if the task was abandoned, or its crew ended: it must change nothing then. On a thread
    that is no task's, only the block runs.
    """
    task: Task[object] | None = getattr(_own, "task", None)
    with task.asking() if task else contextlib.nullcontext():
        yield

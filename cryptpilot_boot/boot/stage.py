"""Running a stage: every volume brought up on its own thread, all that is waited for within one deadline.

A volume has begun once its key is there: its device is being changed, or opened. What has begun is brought to a good
end whatever happens, which takes as long as it takes: a disk that is only half made is of no use to anybody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.errors import CryptpilotError, DeviceError, Interrupted, describe_bug
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.run import interrupt
from cryptpilot_boot.system.wait import Deadline, device_changes, network_changes, wait_for

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cryptpilot_boot.boot.plan import Plan
    from cryptpilot_boot.config import Volume

# A thread whose deadline is over may still be within the key provider's own timeout, or within cryptsetup.
_GRACE = 2.0  # seconds
_LOOK_AGAIN = 1.0
_TELL_EVERY = 5.0
# Seconds that a step may be at work after the deadline. Two take the longer the larger the disk is.
_LONGEST = {"format": 24 * 3600.0, "makefs": 24 * 3600.0}
_LONGEST_OTHER = 60.0
# A program that is ended writes what is left in memory to the disk first, gigabytes perhaps.
_LONGEST_END = 600.0  # seconds


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a volume fared.

    error: None when it is open. seconds: from the start of the stage. late: it was left to the next stage, where it
    may yet succeed; the error says what it was waiting for. needed: the boot cannot go on without it. rotation_pending:
    it was the previous value of its secret that opened it.
    """

    volume: Volume
    stage: str
    seconds: float
    error: CryptpilotError | None = None
    was_open: bool = False
    late: bool = False
    needed: bool = False
    rotation_pending: bool = False

    @property
    def result(self) -> str:
        """Say it in a word or two."""
        if self.error is None:
            return "was open already" if self.was_open else "opened"
        return "left to the system stage" if self.late else "failed"


def run(
    plan: Plan,
    on_outcome: Callable[[Outcome], None],
    pivot: Callable[[], Collection[str] | None] = lambda: None,
    on_late: Callable[[], object] = lambda: None,
    worth: Callable[[], Collection[str]] = tuple,
) -> list[Outcome]:
    """Open the volumes of a stage; one that fails, hangs or is not there delays and fails no other.

    on_outcome: called for each volume as soon as it is known how it fared, one at a time, and again if it turns out
    later that the boot cannot go on without it. pivot: asked what else the pivot waits for now, as names of volumes;
    None while that is not known. Once it is, and `plan.late_after` is over, volumes that are not needed and still wait
    for something are left to the next stage; and so they are as soon as the boot cannot go on. on_late: called when
    `plan.late_after` is over, or all is done before. worth: asked once the pivot is known which volumes, beside those,
    are waited for until the deadline: without them the boot goes on, but the next stage comes too late for them.

    `plan.timeout` is for what is waited for. What has begun by then goes on, unless there is a next stage and it is all
    that keeps the boot from it, or the boot cannot go on: it is ended then, with nothing of it left open. So it is on a
    KeyboardInterrupt and the `system.run.interrupt` that goes with it, which is raised when that is done.
    """
    stage = _Stage(plan, on_outcome, pivot, on_late, worth)
    log.emit("start", facts={"volumes": len(plan.volumes), **_costs()})
    if any(one.needs_network for one in plan.volumes):
        _in_background(lambda: _watch_network(stage.deadline))
    with keys.Answers() as answers:
        try:
            for one in plan.volumes:
                stage.begin(one, answers)
            stage.wait()
        except KeyboardInterrupt:
            stage.finish()
            raise
    on_late()
    stage.wait_for_the_pivot()
    log.emit("done", facts={**_costs(), "peak_memory": process.peak_memory()})
    return [stage.outcomes[one.volume] for one in plan.volumes]


class _Stage:
    """The volumes at work, and what became of the others."""

    def __init__(
        self,
        plan: Plan,
        on_outcome: Callable[[Outcome], None],
        pivot: Callable[[], Collection[str] | None],
        on_late: Callable[[], object],
        worth: Callable[[], Collection[str]],
    ) -> None:
        self.deadline = Deadline(plan.timeout)
        self.outcomes: dict[str, Outcome] = {}
        self._plan = plan
        self._pivot = pivot
        self._on_outcome = on_outcome
        self._on_late = on_late
        self._worth = worth
        self._patience = Deadline(plan.timeout if plan.late_after is None else min(plan.late_after, plan.timeout))
        self._last = log.latest()
        self._unprepared = len(plan.volumes)
        self._begun: set[str] = set()  # and at work
        self._ending = False
        self._overtime: dict[str, tuple[str, Deadline]] = {}  # by volume: its step, and how long that may take
        self._changed = threading.Condition(threading.RLock())

    def begin(self, one: Volume, answers: keys.Answers) -> None:
        """Bring a volume up, on a thread of its own."""

        def bring_up() -> None:
            error: CryptpilotError | None = None
            opened: volume.Opening | None = None
            try:
                opened = _bring_up(one, self.deadline, answers, self._prepared, self._asking)
            except Interrupted:
                self._over(one)  # whoever had it ended says so
                return
            except CryptpilotError as failure:
                error = failure
            except Exception as bug:
                error = CryptpilotError(describe_bug(bug), "please report this")
            try:
                self._settle(one, error, opened)
            finally:
                self._over(one)

        _in_background(bring_up)

    def wait(self) -> None:
        """Wait until it is known of every volume what became of it."""
        grace = Deadline(self.deadline.left() + _GRACE)
        with self._changed:
            while self._pending() and not grace.over:
                if self._patience.over:
                    self._on_late()
                if self._cannot_go_on() or (self._patience.over and self._pivot_is_ready()):
                    self._leave_to_the_next_stage()
                left = grace.left() if self._patience.over else min(grace.left(), self._patience.left())
                self._changed.wait(min(left, _LOOK_AGAIN))
            tell = Deadline(0)
            while self._give_up_what_waits():
                if self._cannot_go_on() or self._pivot_is_ready():
                    self._end()
                    break
                if tell.over:
                    self._tell_of_what_is_at_work()
                    tell = Deadline(_TELL_EVERY)
                self._changed.wait(_LOOK_AGAIN)

    def finish(self) -> None:
        """After an interruption, wait until what has begun has come to an end; nothing begins any more."""
        limit = Deadline(_LONGEST_END)
        with self._changed:
            self._ending = True
            while self._begun and not limit.over:
                self._changed.wait(min(limit.left(), _LOOK_AGAIN))

    def wait_for_the_pivot(self) -> None:
        """If a volume failed, wait until it is known whether the pivot needs it; tell of it again if it does."""
        with self._changed:
            while self._failed_needlessly() and self._plan.late_after is not None and not self.deadline.over:
                if self._cannot_go_on() or self._pivot() is not None:
                    break
                self._changed.wait(min(_LOOK_AGAIN, self.deadline.left()))
            for outcome in self._failed_needlessly():
                if outcome.volume.volume in self._needed():
                    self._tell(dataclasses.replace(outcome, late=False, needed=True))

    def _failed_needlessly(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes.values() if outcome.error and not outcome.needed]

    def _cannot_go_on(self) -> bool:
        return any(outcome.error and outcome.needed for outcome in self.outcomes.values())

    def _pivot_is_ready(self) -> bool:
        """Tell whether there is another stage, and no volume that has to be open before it is still at work."""
        at_work = {one.volume for one in self._pending()}
        if self._plan.late_after is None or self._pivot() is None:
            return False
        return not (self._needed() | set(self._worth())) & at_work

    def _pending(self) -> list[Volume]:
        return [one for one in self._plan.volumes if one.volume not in self.outcomes]

    def _needed(self) -> frozenset[str]:
        return self._plan.needed | frozenset(self._pivot() or ())

    def _give_up_what_waits(self) -> list[Volume]:
        """After the deadline, give up on all that has not begun, or that hangs; return what is at work."""
        for one in self._pending():
            if one.volume not in self._begun or self._hangs(one):
                self._settle(one, _stuck(self.deadline, self._last.get(one.volume)))
        return self._pending()

    def _hangs(self, one: Volume) -> bool:
        last = self._last.get(one.volume)
        step = last.step if last else "start"
        known, limit = self._overtime.get(one.volume, ("", self.deadline))
        if known != step:
            limit = Deadline(_LONGEST.get(step, _LONGEST_OTHER))
            self._overtime[one.volume] = (step, limit)
        return limit.over

    def _tell_of_what_is_at_work(self) -> None:
        for one in self._pending():
            last = self._last.get(one.volume)
            step = last.step if last else "start"
            waiting_for = f"{step}, which had begun and goes on past [boot] timeout"
            log.emit(step, "wait", volume=one.volume, facts={"waiting_for": waiting_for})

    def _end(self) -> None:
        """End what is at work in good order, so that the next stage finds closed what it begins anew."""
        steps = {one.volume: self._last[one.volume].step for one in self._pending() if one.volume in self._last}
        interrupt()
        self.finish()
        for one in self._pending():
            if one.volume in self._begun:
                self._settle(one, _stuck(self.deadline, self._last.get(one.volume)))
            else:
                late = one.volume not in self._needed()
                self._settle(one, _ended(self.deadline, steps.get(one.volume, "start")), late=late)

    def _leave_to_the_next_stage(self) -> None:
        """Give up on volumes that still wait."""
        for one in self._pending():
            if one.volume not in self._begun:
                seconds = self.deadline.total - self.deadline.left()
                doing = _doing(self._last.get(one.volume))
                self._settle(one, CryptpilotError(f"not open after {seconds:.0f} s ({doing})"), late=True)

    @contextlib.contextmanager
    def _asking(self, one: Volume) -> Iterator[None]:
        """Let a volume be given up while it asks for its key.

        Raises Interrupted in the end when it has been, or all is to end: nothing is done to its device then.
        """
        with self._changed:
            self._begun.discard(one.volume)
        yield
        with self._changed:
            if one.volume in self.outcomes or self._ending:
                raise Interrupted
            self._begun.add(one.volume)

    def _over(self, one: Volume) -> None:
        """Note that a volume's thread does nothing any more."""
        with self._changed:
            self._begun.discard(one.volume)
            self._changed.notify_all()

    def _settle(
        self,
        one: Volume,
        error: CryptpilotError | None,
        opened: volume.Opening | None = None,
        *,
        late: bool = False,
    ) -> None:
        with self._changed:
            if one.volume in self.outcomes:
                return  # it was given up meanwhile
            seconds = self.deadline.total - self.deadline.left()
            needed = one.volume in self._needed()
            was_open, pending = opened is volume.Opening.WAS_OPEN, opened is volume.Opening.PREVIOUS
            self._tell(Outcome(one, self._plan.stage, seconds, error, was_open, late, needed, pending))
            self._changed.notify_all()

    def _tell(self, outcome: Outcome) -> None:
        one, error = outcome.volume, outcome.error
        self.outcomes[one.volume] = outcome
        facts: dict[str, object] = {"result": outcome.result, "needed": outcome.needed, "device": one.dev}
        facts.update(keys.describe(one.encrypt))
        if outcome.rotation_pending:
            facts.update(rotation_pending=True)
        if error:
            facts.update(error=error.what, hint=error.hint)
        phase = "fail" if error else "end"
        log.emit("outcome", phase, volume=one.volume, seconds=round(outcome.seconds, 3), facts=facts)
        self._on_outcome(outcome)

    def _prepared(self) -> None:
        with self._changed:
            self._unprepared -= 1
            if not self._unprepared:
                log.emit("ready", facts=_costs())


def _costs() -> dict[str, object]:
    """Return what this process has cost so far: seconds since it was started, seconds of processor time."""
    return {"process_age": round(process.age(), 3), "cpu": round(process.cpu_seconds(), 3)}


def _in_background(work: Callable[[], None]) -> None:
    # daemon: one that hangs must not keep the process from ending
    threading.Thread(target=work, daemon=True).start()


def _bring_up(
    one: Volume,
    deadline: Deadline,
    answers: keys.Answers,
    on_prepared: Callable[[], None],
    asking: Callable[[Volume], contextlib.AbstractContextManager[None]],
) -> volume.Opening:
    """Prepare, wait for the device, ask for the key, open.

    asking: what asks for a key runs in it; raises in the end if the device must not be changed.
    """
    try:
        if volume.is_open(one):
            return volume.Opening.WAS_OPEN
        with log.timed("prepare", one.volume):
            process.lock_memory()
            ask = keys.prepare(one.encrypt)
    finally:
        on_prepared()
    _wait_for_device(one, deadline)

    def ask_passphrase() -> keys.Passphrase:
        with asking(one), log.timed(log.FETCH_KEY, one.volume, **keys.describe(one.encrypt)):
            return answers.ask(one.encrypt, ask, deadline, one.volume)

    previous = keys.previous(one.encrypt)
    if previous is None:
        return volume.open_volume(one, ask_passphrase)

    def ask_previous() -> keys.Passphrase:
        # prepared only now: hardly any boot comes here, and what takes long was done for the current value
        with asking(one), log.timed(log.FETCH_KEY, one.volume, **keys.describe(previous)):
            return answers.ask(previous, keys.prepare(previous), deadline, one.volume)

    return volume.open_volume(one, ask_passphrase, ask_previous=ask_previous)


def _wait_for_device(one: Volume, deadline: Deadline) -> None:
    def tell(left: float) -> None:
        log.emit("wait-device", "wait", volume=one.volume, facts={"waiting_for": f"{one.dev}, {left:.0f} s left"})

    with log.timed("wait-device", one.volume, device=one.dev), device_changes() as changes:
        found = wait_for(lambda: block.is_block_device(one.dev) or None, changes, deadline, on_wait=tell)
        if not found:
            raise DeviceError(
                f"{one.dev} did not appear within {deadline.total:.0f} s",
                'check that the disk is attached and that "dev" names it; a name below /dev/disk/by-id or'
                " by-partuuid stays the same when disks change places",
            )


def _watch_network(deadline: Deadline) -> None:
    """Put the moment the network came up into the log: from here on all time is the key service's and ours."""
    with network_changes() as changes:
        if wait_for(lambda: network.has_route() or None, changes, deadline):
            log.emit("network-up")


def _stuck(deadline: Deadline, last: log.Event | None) -> CryptpilotError:
    """Say where a volume hangs: in which step, and what that step last said it was waiting for."""
    return CryptpilotError(
        f"not done within {deadline.total:.0f} s ({_doing(last)})",
        "see what it did: cryptpilot boot report; [boot] timeout is how long it may wait",
    )


def _ended(deadline: Deadline, step: str) -> CryptpilotError:
    """Say that a volume was at work for too long to keep the boot, and what spares it that."""
    return CryptpilotError(
        f"ended in the middle of {step}, since [boot] timeout ({deadline.total:.0f} s) is over;"
        ' "initrd = false" in its file has it begun in the booted system',
        "let the booted system open it, without a limit: initrd = false",
    )


def _doing(last: log.Event | None) -> str:
    if last is None:
        return "start"
    what = (last.facts.get(fact) for fact in ("waiting_for", "error", "device"))
    return f"{last.step}: {next(filter(None, what), 'at work')}"

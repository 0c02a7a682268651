"""Running a stage: every volume brought up on its own thread, all that is waited for within one deadline.

A volume has begun once its key is there: its device is being changed, or opened. What has begun is brought to a good
end whatever happens, which takes as long as it takes: a disk that is only half made is of no use to anybody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, Callable, Protocol

from cryptpilot_boot import keys, log, steps, volume
from cryptpilot_boot.boot import outcome as outcomes
from cryptpilot_boot.boot.bring_up import Opened, bring_up, watch_network
from cryptpilot_boot.boot.outcome import Outcome as Outcome
from cryptpilot_boot.boot.prompt import Person
from cryptpilot_boot.errors import CryptpilotError, Interrupted, describe_bug
from cryptpilot_boot.system import process
from cryptpilot_boot.system.run import interrupt
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cryptpilot_boot.boot.plan import Plan
    from cryptpilot_boot.config import Volume

# A thread whose deadline is over may still be within the key provider's own timeout, or within cryptsetup.
_GRACE = 2.0  # seconds
_LOOK_AGAIN = 1.0
_TELL_EVERY = 5.0
# Seconds that a step may be at work after the deadline. Two take the longer the larger the disk is, and a disk that
# answers slowly is read in dozens of places.
_LONGEST = {"format": 24 * 3600.0, "makefs": 24 * 3600.0, "probe": 600.0}
_LONGEST_OTHER = 60.0
# A program that is ended writes what is left in memory to the disk first, gigabytes perhaps.
_LONGEST_END = 600.0  # seconds


class Stage(Protocol):
    """What a stage answers about its volumes: `boot.initrd` for the initrd, `boot.system` for the booted system."""

    def needed_by_pivot(self) -> Collection[str] | None:
        """Return the volumes that the pivot needs beside those of `Plan.needed`; None while that is not known.

        Called again and again, on any thread.
        """

    def needed_before_network(self) -> Collection[str]:
        """Return the volumes that the next stage would open too late: they are waited for until the deadline.

        The boot can go on without them. Called once the pivot's needs are known, on any thread.
        """

    def on_deferral(self) -> None:
        """Act on the end of the wait for volumes that can be deferred. Called once; a failure is only logged."""

    def report(self, outcome: Outcome) -> None:
        """Report the result of a volume, as soon as it is known. It must not wait; a failure is only logged.

        Called for one volume at a time, and again if the boot turns out to need a volume that failed.
        """


def run(plan: Plan, stage: Stage) -> list[Outcome]:
    """Open the volumes of a stage, and return their results in the order of the plan.

    A volume that fails, hangs or is absent delays and fails no other.

    When `plan.late_after` is over and the needs of the pivot are known, volumes that it does not need and that still
    wait are deferred to the next stage. They are deferred at once when the boot cannot go on.

    `plan.timeout` limits all waiting. A volume that changes its device by then is finished. It is ended in good order,
    with nothing left open, if the boot cannot go on, or if it alone keeps the boot from the next stage. On a
    KeyboardInterrupt, and the `system.run.interrupt` that goes with it, all are ended so, and then it is raised.

    With `plan.ask` a user is asked for a key that does not arrive, see `boot.prompt`. If the boot cannot go on without
    the volume, that wait has no limit.
    """
    work = _Work(plan, stage)
    log.emit("start", facts={"volumes": len(plan.volumes), **_costs()})
    if any(one.needs_network for one in plan.volumes):
        _in_background(lambda: watch_network(work.deadline))
    with keys.Answers() as answers:
        try:
            for one in plan.volumes:
                work.begin(one, answers)
            work.wait()
        except KeyboardInterrupt:
            work.finish()
            raise
        except Exception:
            # a bug in cryptpilot: it must leave nothing half done
            interrupt()
            work.finish()
            raise
        finally:
            work.dismiss()
    work.end_deferral()
    work.wait_for_the_pivot()
    log.emit("done", facts={**_costs(), "peak_memory": process.peak_memory()})
    return [work.outcomes[one.volume] for one in plan.volumes]


class _Work:
    """The volumes at work, and the results of the others."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        self.deadline = Deadline(plan.timeout)
        self.outcomes: dict[str, Outcome] = {}
        self._plan = plan
        self._stage = stage
        self._deferral = Deadline(plan.timeout if plan.late_after is None else min(plan.late_after, plan.timeout))
        self._deferral_ended = False
        self._unprepared = len(plan.volumes)
        self._begun: set[str] = set()  # and at work
        self._persons: dict[str, Person] = {}
        self._at_key: set[str] = set()  # those whose key is asked for
        self._ending = False
        # by volume: its step, and how long that may take
        self._overtime: dict[str, tuple[steps.Step | None, Deadline]] = {}
        self._changed = threading.Condition(threading.RLock())

    def begin(self, one: Volume, answers: keys.Answers) -> None:
        """Bring a volume up, on a thread of its own."""
        person = self._person(one)

        def work() -> None:
            error: CryptpilotError | None = None
            opened: Opened | None = None
            try:
                opened = bring_up(one, self.deadline, answers, self._prepared, self._asking, person)
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

        _in_background(work)

    def _person(self, one: Volume) -> Person | None:
        """Return who may be asked for a volume's key, beside its provider."""
        if not self._plan.ask or one.temporary:
            return None

        def wanted() -> bool:
            # what can be deferred is asked for by the next stage
            return not self._plan.next_stage or one.volume in self._not_deferrable()

        def endless() -> bool:
            return one.volume in self._needed() or (not self._plan.next_stage and one.required)

        self._persons[one.volume] = Person(one, wanted, endless)
        return self._persons[one.volume]

    def dismiss(self) -> None:
        """Have all prompts go away, and wait for that: nobody else would end them."""
        for person in self._persons.values():
            person.dismiss()
        for person in self._persons.values():
            person.await_end()

    def wait(self) -> None:
        """Wait until it is known of every volume what became of it."""
        grace = Deadline(self.deadline.left() + _GRACE)
        with self._changed:
            while self._pending() and not grace.over:
                if self._deferral.over:
                    self.end_deferral()
                if self._cannot_go_on() or (self._deferral.over and self._pivot_is_ready()):
                    self._defer()
                left = grace.left() if self._deferral.over else min(grace.left(), self._deferral.left())
                self._look_again(left)
            while self._give_up_what_waits():
                if self._cannot_go_on() or self._pivot_is_ready():
                    self._end()
                    break
                self._look_again(_LOOK_AGAIN)

    def end_deferral(self) -> None:
        """Have the stage act, once, on the end of the wait for volumes that can be deferred."""
        if not self._deferral_ended:
            self._deferral_ended = True
            with log.telling("that this stage does not wait for a network any longer"):
                self._stage.on_deferral()

    def finish(self) -> None:
        """After an interruption, wait until what has begun has come to an end; nothing begins any more."""
        limit = Deadline(_LONGEST_END)
        with self._changed:
            self._ending = True
            while self._begun and not limit.over:
                self._look_again(limit.left())

    def wait_for_the_pivot(self) -> None:
        """If a volume failed, wait until it is known whether the pivot needs it; tell of it again if it does."""
        with self._changed:
            while self._failed_needlessly() and self._plan.next_stage and not self.deadline.over:
                if self._cannot_go_on() or self._stage.needed_by_pivot() is not None:
                    break
                self._look_again(self.deadline.left())
            for outcome in self._failed_needlessly():
                if outcome.volume.volume in self._needed():
                    self._tell(dataclasses.replace(outcome, late=False, needed=True))

    def _failed_needlessly(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes.values() if outcome.error and not outcome.needed]

    def _cannot_go_on(self) -> bool:
        return any(outcome.error and outcome.needed for outcome in self.outcomes.values())

    def _pivot_is_ready(self) -> bool:
        """Tell whether there is another stage, and no volume that has to be open before it is still at work."""
        if not self._plan.next_stage or self._stage.needed_by_pivot() is None:
            return False
        return not self._not_deferrable() & {one.volume for one in self._pending()}

    def _not_deferrable(self) -> frozenset[str]:
        """Return the volumes that the next stage would open too late, as far as it is known."""
        by_pivot = self._stage.needed_by_pivot()
        early = () if by_pivot is None else self._stage.needed_before_network()
        return self._plan.needed | frozenset(by_pivot or ()) | frozenset(early)

    def _pending(self) -> list[Volume]:
        return [one for one in self._plan.volumes if one.volume not in self.outcomes]

    def _needed(self) -> frozenset[str]:
        return self._plan.needed | frozenset(self._stage.needed_by_pivot() or ())

    def _give_up_what_waits(self) -> list[Volume]:
        """After the deadline, give up on all that has not begun, or that hangs; return what is at work."""
        for one in self._pending():
            if self._awaits_a_person(one):
                continue
            if one.volume not in self._begun or self._hangs(one):
                self._settle(one, _stuck(self.deadline, one))
        return self._pending()

    def _awaits_a_person(self, one: Volume) -> bool:
        person = self._persons.get(one.volume)
        return one.volume in self._at_key and person is not None and person.endless

    def _hangs(self, one: Volume) -> bool:
        step = steps.current(one.volume)
        known, limit = self._overtime.get(one.volume, (None, None))
        if limit is None or known is not step:
            limit = Deadline(_LONGEST.get(step.name, _LONGEST_OTHER) if step else _LONGEST_OTHER)
            self._overtime[one.volume] = (step, limit)
        return limit.over

    def _look_again(self, seconds: float) -> None:
        """Sleep until something changes, for so many seconds and for 1 at most; then tell of what takes long."""
        self._changed.wait(min(seconds, _LOOK_AGAIN))
        pending = {one.volume for one in self._pending()}
        for step in steps.long(_TELL_EVERY):
            if step.volume in pending:
                late = "; it had begun, and goes on past [boot] timeout" if self.deadline.over else ""
                doing = f"{step.words}: {step.seconds:.0f} s{late}"
                log.emit(step.name, "busy", volume=step.volume, facts={"doing": doing})

    def _end(self) -> None:
        """End what is at work in good order, so that the next stage finds closed what it begins anew."""
        doing = {one.volume: steps.current(one.volume) for one in self._pending()}
        interrupt()
        self.finish()
        for one in self._pending():
            if one.volume in self._begun:
                self._settle(one, _stuck(self.deadline, one))
            else:
                late = one.volume not in self._needed()
                self._settle(one, _ended(self.deadline, doing.get(one.volume)), late=late)

    def _defer(self) -> None:
        """Defer the volumes that still wait to the next stage."""
        for one in self._pending():
            if one.volume not in self._begun:
                seconds = self.deadline.passed()
                self._settle(one, CryptpilotError(f"not open after {seconds:.0f} s ({_doing(one)})"), late=True)

    @contextlib.contextmanager
    def _asking(self, one: Volume) -> Iterator[None]:
        """Let a volume be given up while it asks for its key.

        Raises Interrupted in the end when it has been, or all is to end: nothing is done to its device then.
        """
        with self._changed:
            self._begun.discard(one.volume)
            self._at_key.add(one.volume)
        try:
            yield
        finally:
            with self._changed:
                self._at_key.discard(one.volume)
                if one.volume in self.outcomes or self._ending:
                    raise Interrupted
                # without a key too: where a person is asked next, its device is read again before
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
        opened: Opened | None = None,
        *,
        late: bool = False,
    ) -> None:
        with self._changed:
            if one.volume in self.outcomes:
                return  # it was given up meanwhile
            seconds = self.deadline.passed()
            needed = one.volume in self._needed()
            how, source = (opened.how, opened.source) if opened else (None, 0)
            was_open, pending = how is volume.Opening.WAS_OPEN, how is volume.Opening.PREVIOUS
            ending = outcomes.ending(one, how, source)
            typed = how is volume.Opening.TYPED
            if one.volume in self._persons:
                self._persons[one.volume].dismiss()
            self._tell(
                Outcome(one, self._plan.stage, seconds, error, was_open, late, needed, pending, ending, source, typed)
            )
            self._changed.notify_all()

    def _tell(self, outcome: Outcome) -> None:
        one = outcome.volume
        self.outcomes[one.volume] = outcome
        phase = "fail" if outcome.error else "end"
        log.emit("outcome", phase, volume=one.volume, seconds=round(outcome.seconds, 3), facts=outcome.facts)
        with log.telling(f"what became of {one.volume}"):
            self._stage.report(outcome)

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


def _stuck(deadline: Deadline, one: Volume) -> CryptpilotError:
    """Say where a volume hangs: in which step, and what that step last said it was waiting for."""
    return CryptpilotError(
        f"not done within {deadline.total:.0f} s ({_doing(one)})",
        "see what it did: cryptpilot boot report; [boot] timeout is how long it may wait",
    )


def _ended(deadline: Deadline, step: steps.Step | None) -> CryptpilotError:
    """Say that a volume was at work for too long to keep the boot, and what spares it that."""
    return CryptpilotError(
        f"ended in the middle of {step.name if step else 'its start'}, since [boot] timeout"
        f" ({deadline.total:.0f} s) is over;"
        ' "initrd = false" in its file has it begun in the booted system',
        "let the booted system open it, without a limit: initrd = false",
    )


def _doing(one: Volume) -> str:
    step = steps.current(one.volume)
    if step is None:
        return "start"
    return f"{step.name}: {step.waiting_for or f'{step.words} for {step.seconds:.0f} s'}"

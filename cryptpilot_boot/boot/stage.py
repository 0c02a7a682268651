"""Running a stage: every volume is opened by a task of its own, and one deadline limits all waiting.

A volume changes its device once its key is there. From then on it is finished, however long that takes: a disk that is
half made is of no use.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import TYPE_CHECKING

from cryptpilot_boot import keys, log, steps
from cryptpilot_boot.boot import outcome as outcomes
from cryptpilot_boot.boot.bring_up import bring_up, watch_network
from cryptpilot_boot.boot.needs import BootNeeds
from cryptpilot_boot.boot.outcome import Outcome as Outcome
from cryptpilot_boot.boot.secrets import Secrets
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.system import process
from cryptpilot_boot.system.run import interrupt
from cryptpilot_boot.system.wait import Deadline
from cryptpilot_boot.tasks import Crew, Phase
from cryptpilot_boot.volume import Opened

if TYPE_CHECKING:
    from cryptpilot_boot.boot.needs import Stage
    from cryptpilot_boot.boot.plan import Plan
    from cryptpilot_boot.config import Volume

GRACE = 2.0
"""Seconds after the deadline in which a task may still end by its own timeout, or that of a program."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at what announces no change."""
LOOK_FOR_PROMPTS = 0.5
"""The same while users may have to be asked."""
TELL_EVERY = 5.0
"""Seconds between two reports of a step that takes long."""
LONGEST = {"format": 24 * 3600.0, "makefs": 24 * 3600.0, "probe": 600.0}
"""Seconds that a step may be at work after the deadline, by its name.

Two take the longer the larger the disk is, and a disk that answers slowly is read in dozens of places.
"""
LONGEST_OTHER = 60.0
"""The same for all other steps."""
LONGEST_END = 600.0
"""Seconds after an interruption: a program that is ended first writes what is left in memory to the disk."""


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
        # daemon: it may wait until the deadline, and must not keep the process from ending
        threading.Thread(target=watch_network, args=[work.deadline], daemon=True).start()
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
            work.finish(report=False)
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
        self._crew: Crew[Opened] = Crew("please report this")
        self._changed = self._crew.changed
        self._ready = not plan.volumes
        self._needs = BootNeeds(plan, stage)
        self._secrets = Secrets(self._needs, self.deadline)

    def begin(self, one: Volume, answers: keys.Answers) -> None:
        """Start the task of a volume."""
        secret = self._secrets.of(one, answers)
        self._crew.start(one.volume, functools.partial(bring_up, one, self.deadline, secret))

    def dismiss(self) -> None:
        """Withdraw all prompts, and wait until they have disappeared."""
        self._secrets.dismiss_all()

    def wait(self) -> None:
        """Wait until every volume has a result."""
        grace = Deadline(self.deadline.left() + GRACE)
        with self._changed:
            self._take_results()
            while self._pending() and not grace.over:
                if self._deferral.over:
                    self.end_deferral()
                if self._cannot_go_on() or (self._deferral.over and self._pivot_is_ready()):
                    self._defer()
                ahead = (one.left() for one in (grace, self._deferral, self.deadline) if not one.over)
                self._look_again(min(ahead, default=0.0))
            while self._give_up():
                if self._cannot_go_on() or self._pivot_is_ready():
                    self._end()
                    break
                self._look_again(LOOK_AGAIN)

    def end_deferral(self) -> None:
        """Have the stage act, once, on the end of the wait for volumes that can be deferred."""
        if not self._deferral_ended:
            self._deferral_ended = True
            with log.telling("that this stage does not wait for a network any longer"):
                self._stage.on_deferral()

    def finish(self, *, report: bool = True) -> None:
        """After an interruption, wait for what has to be finished. report: whether the results are reported."""
        limit = Deadline(LONGEST_END)
        with self._changed:
            self._crew.end()
            while self._crew.has_to_finish and not limit.over:
                self._sleep(limit.left())
            if report:
                self._take_results()

    def wait_for_the_pivot(self) -> None:
        """If a volume failed, wait until it is known whether the pivot needs it; if it does, report it again."""
        with self._changed:
            while self._failed_needlessly() and self._plan.next_stage and not self.deadline.over:
                if self._cannot_go_on() or self._needs.pivot_is_known:
                    break
                self._look_again(self.deadline.left())
            for outcome in self._failed_needlessly():
                if outcome.volume.volume in self._needs.by_pivot:
                    self._report(dataclasses.replace(outcome, late=False, needed=True))

    def _failed_needlessly(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes.values() if outcome.error and not outcome.needed]

    def _cannot_go_on(self) -> bool:
        return any(outcome.error and outcome.needed for outcome in self.outcomes.values())

    def _pivot_is_ready(self) -> bool:
        """Return whether a stage follows, and every volume that it would open too late has a result."""
        known = self._plan.next_stage and self._needs.pivot_is_known
        return known and not self._needs.not_deferrable & {one.volume for one in self._pending()}

    def _pending(self) -> list[Volume]:
        return [one for one in self._plan.volumes if one.volume not in self.outcomes]

    def _give_up(self) -> list[Volume]:
        """After the deadline, give up all volumes that wait, or that hang; return those that are at work."""
        for one in self._pending():
            task = self._crew.tasks[one.volume]
            gone = task.phase is not Phase.CHANGING or task.overruns(LONGEST, LONGEST_OTHER)
            if gone and not (task.phase is Phase.ASKING and self._secrets.wait_for_user(one)):
                self._fail(one, outcomes.stuck(self.deadline, one))
        return self._pending()

    def _defer(self) -> None:
        """Defer the volumes that still wait to the next stage."""
        for one in self._pending():
            if self._crew.tasks[one.volume].phase is not Phase.CHANGING:
                self._fail(one, outcomes.not_yet(self.deadline, one), late=True)

    def _end(self) -> None:
        """End what is at work in good order, so that the next stage finds it closed."""
        doing = {one.volume: steps.current(one.volume) for one in self._pending()}
        interrupt()
        self.finish()
        for one in self._pending():
            if self._crew.tasks[one.volume].phase is Phase.CHANGING:
                self._fail(one, outcomes.stuck(self.deadline, one))
            else:
                late = one.volume not in self._needs.by_pivot
                self._fail(one, outcomes.ended(self.deadline, doing.get(one.volume)), late=late)

    def _look_again(self, seconds: float) -> None:
        self._sleep(seconds)
        self._take_results()
        self._secrets.look(self._pending())

    def _sleep(self, seconds: float) -> None:
        """Sleep until a task changes, for so many seconds and for 1 at most; then report what takes long."""
        self._changed.wait(min(seconds, LOOK_FOR_PROMPTS if self._secrets.have_prompts else LOOK_AGAIN))
        pending = {one.volume for one in self._pending()}
        for step in steps.long(TELL_EVERY):
            if step.volume in pending:
                late = "; it had begun, and goes on past [boot] timeout" if self.deadline.over else ""
                doing = f"{step.words}: {step.seconds:.0f} s{late}"
                log.emit(step.name, "busy", volume=step.volume, facts={"doing": doing})

    def _take_results(self) -> None:
        """Report the volumes whose tasks are done. One that was interrupted is left to the caller that did that."""
        started = self._crew.tasks  # after an interruption perhaps not all
        if not self._ready and len(started) == len(self._plan.volumes) and not self._crew.in_phase(Phase.PREPARING):
            self._ready = True
            log.emit("ready", facts=_costs())
        for one in self._pending():
            if one.volume not in started or started[one.volume].phase is not Phase.DONE:
                continue
            result = started[one.volume].result
            if isinstance(result, Opened):
                self._settle(outcomes.opened(one, self._plan.stage, self.deadline, result))
            elif not isinstance(result, Interrupted):
                self._fail(one, result)

    def _fail(self, one: Volume, error: CryptpilotError, *, late: bool = False) -> None:
        self._crew.tasks[one.volume].give_up()
        self._secrets.stop(one)
        self._settle(Outcome(one, self._plan.stage, self.deadline.passed(), error, late=late))

    def _settle(self, outcome: Outcome) -> None:
        name = outcome.volume.volume
        self._secrets.dismiss(outcome.volume)
        self._report(dataclasses.replace(outcome, needed=name in self._needs.by_pivot))

    def _report(self, outcome: Outcome) -> None:
        one = outcome.volume
        phase = "fail" if outcome.error else "end"
        log.emit("outcome", phase, volume=one.volume, seconds=round(outcome.seconds, 3), facts=outcome.facts)
        with log.telling(f"what became of {one.volume}"):
            self._stage.report(outcome)
        # not before: a KeyboardInterrupt may come here, and `finish` reports what has no outcome
        self.outcomes[one.volume] = outcome


def _costs() -> dict[str, object]:
    """Return what this process has cost so far: seconds since it was started, seconds of processor time."""
    return {"process_age": round(process.age(), 3), "cpu": round(process.cpu_seconds(), 3)}

"""The result of a volume in a stage of the boot, and the errors of one that is not open in time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import keys, log, steps, volume
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.keys.names import named

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.providers.expiry import Notice
    from cryptpilot_boot.system.wait import Deadline


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a volume in a stage.

    error: None when it is open. seconds: from the start of the stage. late: it was deferred to the next stage, which
    may open it; the error says what it was waiting for. needed: the boot cannot go on without it. rotation_pending: the
    previous value of its secret opened it. ending: what to say of a client key that ends. source: the number of the
    source of its key that opened it. typed: a key that a user typed on the console opened it.
    """

    volume: Volume
    stage: str
    seconds: float
    error: CryptpilotError | None = None
    was_open: bool = False
    late: bool = False
    needed: bool = False
    rotation_pending: bool = False
    ending: Notice | None = None
    source: int = 0
    typed: bool = False

    @property
    def result(self) -> str:
        """Say it in a word or two."""
        if self.error is None:
            return "was open already" if self.was_open else "opened"
        return "left to the system stage" if self.late else "failed"

    @property
    def opened_by(self) -> str:
        """Which of several sources gave the key; "" for a volume with one, and where none did."""
        if self.error or self.was_open or self.typed or not self.volume.fallbacks:
            return ""
        return named(self.volume, self.source)

    @property
    def facts(self) -> dict[str, object]:
        """The fields of its event in the log."""
        facts: dict[str, object] = {"result": self.result, "needed": self.needed, "device": self.volume.dev}
        facts.update(keys.describe(self.volume.sources[self.source]))
        if self.opened_by:
            facts.update(source=self.volume.source_name(self.source))
        if self.rotation_pending:
            facts.update(rotation_pending=True)
        if self.typed:
            facts.update(typed=True)
        if self.ending:
            facts.update(ending=str(self.ending))
        if self.error:
            facts.update(error=self.error.what, hint=self.error.hint)
        return facts


def opened(one: Volume, stage: str, deadline: Deadline, result: volume.Opened) -> Outcome:
    """Return the outcome of a volume that is open. deadline: of the stage."""
    how, source = result.how, result.source or 0
    return Outcome(
        one,
        stage,
        deadline.passed(),
        was_open=how is volume.Opening.WAS_OPEN,
        rotation_pending=how is volume.Opening.PREVIOUS,
        typed=how is volume.Opening.TYPED,
        ending=ending(one, how, source),
        source=source,
    )


def stuck(deadline: Deadline, one: Volume) -> CryptpilotError:
    """Return the error of a volume that is not done by the deadline: its step, and what that waits for."""
    return CryptpilotError(
        f"not done within {deadline.total:.0f} s ({_doing(one)})",
        "see what it did: cryptpilot boot report; [boot] timeout is how long it may wait",
    )


def not_yet(deadline: Deadline, one: Volume) -> CryptpilotError:
    """Return the error of a volume that is deferred: its step, and what that waits for."""
    return CryptpilotError(f"not open after {deadline.passed():.0f} s ({_doing(one)})")


def ended(deadline: Deadline, step: steps.Step | None) -> CryptpilotError:
    """Return the error of a volume that was ended at work, so that the boot can go on. step: in which it was."""
    return CryptpilotError(
        f"stopped during {step.name if step else 'its start'}: [boot] timeout ({deadline.total:.0f} s) expired;"
        ' "initrd = false" in its file avoids this',
        "let the booted system open it, without a limit: initrd = false",
    )


def _doing(one: Volume) -> str:
    step = steps.current(one.volume)
    if step is None:
        return "start"
    return f"{step.name}: {step.waiting_for or f'{step.words} for {step.seconds:.0f} s'}"


def ending(one: Volume, how: volume.Opening, source: int = 0) -> Notice | None:
    """Return what to say of the end of a volume's client key. source: the number of the one that opened it.

    Only where KMS has just given its secret out with that: it finds no clock right that is more than 15 minutes off, so
    this is no host's date.
    """
    if how not in (volume.Opening.CURRENT, volume.Opening.PREVIOUS):
        return None
    with log.telling(f"when the client key of {one.volume} ends"):
        return keys.ending(one.sources[source])
    return None

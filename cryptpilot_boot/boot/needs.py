"""What a stage of the boot is asked about its volumes, and which of them the boot needs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptpilot_boot.boot.outcome import Outcome
    from cryptpilot_boot.boot.plan import Plan
    from cryptpilot_boot.config import Volume


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


@dataclasses.dataclass(frozen=True)
class BootNeeds:
    """Which volumes the boot needs, as far as it is known at the moment."""

    plan: Plan
    stage: Stage

    @property
    def pivot_is_known(self) -> bool:
        """Whether it is known what the pivot needs."""
        return self.stage.needed_by_pivot() is not None

    @property
    def by_pivot(self) -> frozenset[str]:
        """The volumes without which the boot cannot go on."""
        return self.plan.needed | frozenset(self.stage.needed_by_pivot() or ())

    @property
    def not_deferrable(self) -> frozenset[str]:
        """The volumes that the next stage would open too late."""
        by_pivot = self.stage.needed_by_pivot()
        early = () if by_pivot is None else self.stage.needed_before_network()
        return self.plan.needed | frozenset(by_pivot or ()) | frozenset(early)

    def stop_boot(self, one: Volume) -> bool:
        """Whether the boot stops without a volume, and so waits for a user without a limit."""
        return one.volume in self.by_pivot or (not self.plan.next_stage and one.required)

    def can_be_deferred(self, one: Volume) -> bool:
        """Whether the next stage can open a volume."""
        return self.plan.next_stage and one.volume not in self.not_deferrable

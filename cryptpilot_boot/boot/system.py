"""The stage in the booted system. It opens every volume that the initrd did not open; no stage follows it.

`boot.initrd` answers the same questions for the initrd, see `boot.needs.Stage`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.boot import console, failures
from cryptpilot_boot.boot.plan import before_network
from cryptpilot_boot.system import block, init

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptpilot_boot.boot.outcome import Outcome
    from cryptpilot_boot.boot.plan import Plan

_TOO_LATE = "its mount is needed before the network is up, and the boot waits no longer for it: open it in the initrd"


@dataclasses.dataclass(frozen=True)
class System:
    """The stage in the booted system.

    plan: what it opens. say: writes a line to the console; neither fails nor waits. problems: whether a file of the
    configuration cannot be used. whole: False when it opens volumes that were named, and leaves the others alone.
    """

    plan: Plan
    say: Callable[[str], None]
    problems: bool
    whole: bool

    def begin(self) -> None:
        """Warn of closed volumes that the system needed before it had a network."""
        if not self.whole:
            return
        for name in sorted(before_network(init.fstab(), self.plan.volumes, init.resolve)):
            if not block.is_block_device(f"/dev/mapper/{name}"):
                self.say(f"{name}: {_TOO_LATE}")

    def needed_by_pivot(self) -> frozenset[str]:
        """Return no volume: the pivot is over."""
        return frozenset()

    def needed_before_network(self) -> frozenset[str]:
        """Return no volume: they are all waited for until the deadline."""
        return frozenset()

    def on_deferral(self) -> None:
        """Do nothing: nothing is deferred, and systemd waits for the network."""

    def report(self, outcome: Outcome) -> None:
        """Write the result of a volume to the console, and note a failure for the volume's unit.

        The unit is started after this stage, and repeats it.
        """
        lines = console.result(outcome)
        for line in lines:
            self.say(line)
        if self.whole:
            failures.record(outcome.volume.volume, lines if outcome.error else [])

    def end(self, outcomes: Iterable[Outcome]) -> bool:
        """Return whether all is open that the configuration has opened at boot."""
        return not self.problems and not any(outcome.error for outcome in outcomes)

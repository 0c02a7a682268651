"""The stage in the initrd. It opens what the image carries; only what the pivot needs can stop the boot.

`boot.system` answers the same questions for the booted system, see `boot.needs.Stage`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.boot import console
from cryptpilot_boot.boot.plan import before_network, early_mounts
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import exitrd, init
from cryptpilot_boot.units import fstab

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptpilot_boot.boot.outcome import Outcome
    from cryptpilot_boot.boot.plan import Plan


@dataclasses.dataclass(frozen=True)
class Initrd:
    """The stage in the initrd.

    plan: what it opens. command_line: the kernel's. say: writes a line to the console; neither fails nor waits.
    settle: gives the console a moment to take what was said. shell: whether a boot that stops gives one.

    Without an initrd around it, as when a user starts the stage by hand, it opens volumes and leaves the boot alone.
    """

    plan: Plan
    command_line: str
    say: Callable[[str], None]
    settle: Callable[[], object]
    shell: bool

    def begin(self) -> None:
        """Prepare the shutdown of a root on a volume."""
        if init.in_initrd():
            self._prepare_shutdown(exitrd.claim)

    def needed_by_pivot(self) -> frozenset[str] | None:
        """Return the volumes that the root's fstab has mounted before the pivot; None while the root is not mounted.

        A source that is no name of a volume may lie on one of them: then None until it is mounted. dracut without
        systemd mounts it after this process has ended, so it is not waited for there.
        """
        text = init.next_fstab()
        if text is None:
            return None
        names = frozenset(one.volume for one in self.plan.volumes)
        early = early_mounts(text, self.command_line)
        sources = {where: fstab.mapper_name(source) for where, source in early.items()}
        others = [where for where, name in sources.items() if name not in names]
        if init.runs_systemd() and not all(init.is_mounted_for_pivot(where) for where in others):
            return None
        return names & set(sources.values())

    def needed_before_network(self) -> frozenset[str]:
        """Return the volumes that the booted system needs before it has a network: it would open them too late."""
        return frozenset(before_network(init.next_fstab() or "", self.plan.volumes))

    def on_deferral(self) -> None:
        """Let dracut's main loop go on without a network."""
        if init.in_initrd():
            init.say_late()

    def report(self, outcome: Outcome) -> None:
        """Write the result of a volume to the console."""
        for line in console.result(outcome, shell=self.shell):
            self.say(line)

    def end(self, outcomes: Iterable[Outcome]) -> bool:
        """Stop the boot if it cannot go on, else release the network; False when the boot cannot go on."""
        stops = any(outcome.error and outcome.needed for outcome in outcomes)
        if not init.in_initrd():
            return not stops
        if stops:
            self.settle()  # what stops the boot may end this process as well
            self._stop_boot()
        else:
            # on a failed boot the network stays, for a user who opens a volume in an emergency shell
            with log.telling("that no network is needed any longer"):
                init.say_over()
            self._prepare_shutdown(exitrd.keep)
        return not stops

    def _stop_boot(self) -> None:
        """Stop the boot. If that fails, the exit status of this stage is the only sign."""
        try:
            init.stop_boot()
        except (CryptpilotError, OSError) as error:
            self.say(f"the boot cannot be stopped: {log.reason(error)}")

    def _prepare_shutdown(self, step: Callable[[], None]) -> None:
        """Do what only the shutdown of this machine needs: if it fails, the boot goes on."""
        try:
            step()
        except (CryptpilotError, OSError) as error:
            self.say(f"{log.reason(error)}; the root's volume stays open until the power is off")

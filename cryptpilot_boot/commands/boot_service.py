"""`cryptpilot boot-service --stage ...`: what the units run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.boot import console, eventlog, plan, stage
from cryptpilot_boot.system import init

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config


def boot_service(config: Config, stage_name: str, say: Callable[[str], None]) -> bool:
    """Open what this stage opens; False when something is not open that has to be.

    In the initrd that is what the pivot needs: all else is left to the system stage, which needs everything, the
    volumes of files that cannot be used included.
    """
    todo = plan.plan(config, stage_name, init.kernel_command_line())
    log.subscribe(eventlog.writer(stage_name))
    for problem in config.problems:  # the console has been told already, whether it is verbose or not
        log.emit("config", "fail", facts={"error": problem.what})
    log.subscribe(console.verbose(say) if todo.verbose else console.brief(say))
    speaking = threading.Lock()

    def tell(outcome: stage.Outcome) -> None:
        needed = outcome.volume.volume in todo.needed
        with speaking:
            for line in console.result(outcome, needed=needed):
                say(line)

    outcomes = stage.run(todo, tell)
    failed = {outcome.volume.volume for outcome in outcomes if outcome.error}
    if failed & todo.needed and init.in_initrd():
        init.stop_boot()
    return not (failed & todo.needed if stage_name == "initrd" else failed or config.problems)

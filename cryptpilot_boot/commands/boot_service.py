"""`cryptpilot boot-service --stage ...`: what the units run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.boot import console, parameters, plan, stage
from cryptpilot_boot.boot.initrd import Initrd
from cryptpilot_boot.boot.system import System
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.report import eventlog
from cryptpilot_boot.system import init

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.config import Config


def boot_service(
    config: Config,
    stage_name: str,
    say: Callable[[str], None],
    settle: Callable[[], object],
    only: Sequence[str] = (),
) -> bool:
    """Open the volumes of a stage; False when a volume that has to be open is not.

    In the initrd that is what the pivot needs: all else is deferred to the system stage. It needs every volume,
    including those of files that cannot be used. say: writes a line to the console; neither fails nor waits. settle:
    gives the console a moment to take what was said. only: names of volumes; all others are left alone, and what is
    wrong with them too. Raises CryptpilotError when one of these is not for this stage to open.
    """
    chosen = select(config, only) if only else []
    command_line = init.kernel_command_line()
    todo = plan.plan(config, stage_name, command_line, [one.volume for one in chosen])
    for one in chosen:
        if one not in todo.volumes:
            raise plan.refusal(one, stage_name, command_line)
    current: Initrd | System
    if stage_name == "initrd":
        shell = parameters.asks_for_shell(command_line, default=config.boot.emergency_shell)
        current = Initrd(todo, command_line, say, settle, shell)
    else:
        current = System(todo, say, problems=bool(config.problems), whole=not only)
    with _told(config, todo, say):
        current.begin()
        outcomes = stage.run(todo, current)
        good = current.end(outcomes)
    return not any(outcome.error for outcome in outcomes) if only else good


@contextmanager
def _told(config: Config, todo: plan.Plan, say: Callable[[str], None]) -> Iterator[None]:
    """Send events to the event log and the console, and say what is wrong with configuration and command line."""

    def lose_log(error: Exception) -> None:
        say(f"the event log can no longer be written: {eventlog.PATH}: {log.reason(error)}")

    with log.subscribed(eventlog.writer(todo.stage), lose_log):
        for problem in config.problems:  # the console has been told already, whether it is verbose or not
            log.emit("config", "fail", facts={"error": problem.what})
        for complaint in todo.complaints:
            say(f"{complaint}; it is ignored")
        with log.subscribed(console.verbose(say) if todo.verbose else console.brief(say)):
            yield

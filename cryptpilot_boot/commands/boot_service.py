"""`cryptpilot boot-service --stage ...`: what the units run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.boot import console, failures, parameters, plan, stage
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.report import eventlog
from cryptpilot_boot.system import block, exitrd, init
from cryptpilot_boot.units import fstab

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cryptpilot_boot.config import Config

_TOO_LATE = (
    "what is mounted of it is needed before there may be a network, and is not waited for beyond that:"
    " it belongs into the initrd"
)


def boot_service(
    config: Config,
    stage_name: str,
    say: Callable[[str], None],
    settle: Callable[[], object],
    only: Sequence[str] = (),
) -> bool:
    """Open what this stage opens; False when something is not open that has to be.

    In the initrd that is what the pivot needs: all else is left to the system stage, which needs everything, the
    volumes of files that cannot be used included. say: tells on the console, and neither fails nor waits. settle: gives
    the console a moment to take what was said. only: names of volumes, all others are left alone, and what is wrong
    with them too. Raises CryptpilotError when one of these is not for this stage to open.
    """
    chosen = select(config, only) if only else []
    names = [one.volume for one in chosen]
    command_line = init.kernel_command_line()
    todo = plan.plan(config, stage_name, command_line, names)
    volumes = {one.volume for one in todo.volumes}
    for one in chosen:
        if one.volume not in volumes:
            raise plan.refusal(one, stage_name, command_line)

    def lose_log(error: Exception) -> None:
        say(f"the event log can no longer be written: {eventlog.PATH}: {log.reason(error)}")

    log.subscribe(eventlog.writer(stage_name), lose_log)
    for problem in config.problems:  # the console has been told already, whether it is verbose or not
        log.emit("config", "fail", facts={"error": problem.what})
    for complaint in todo.complaints:
        say(f"{complaint}; it is ignored")
    log.subscribe(console.verbose(say) if todo.verbose else console.brief(say))

    shell = parameters.asks_for_shell(command_line, default=config.boot.emergency_shell)

    def tell(outcome: stage.Outcome) -> None:
        lines = console.result(outcome, shell=shell)
        for line in lines:
            say(line)
        if stage_name == "system" and not only:  # the volume's unit comes after this, and repeats it
            failures.record(outcome.volume.volume, lines if outcome.error else [])

    def pivot() -> Collection[str] | None:
        text = init.next_fstab() if stage_name == "initrd" else None
        if text is None:
            return None
        early = plan.early_mounts(text, command_line)
        ours = {where: fstab.mapper_name(source) for where, source in early.items()}
        others = [where for where, name in ours.items() if name not in volumes]
        # what is none of our names may lie on one of our volumes; without systemd dracut mounts it after we are done
        if init.runs_systemd() and not all(init.is_mounted_for_pivot(where) for where in others):
            return None
        return volumes & set(ours.values())

    def worth() -> Collection[str]:
        return plan.before_network(init.next_fstab() or "", todo.volumes)

    if stage_name == "system" and not only:
        for name in sorted(plan.before_network(init.fstab(), todo.volumes, init.resolve)):
            if not block.is_block_device(f"/dev/mapper/{name}"):
                say(f"{name}: {_TOO_LATE}")
    in_initrd = init.in_initrd()
    if in_initrd:
        _prepare_shutdown(exitrd.claim, say)
    outcomes = stage.run(todo, tell, pivot, init.say_late if in_initrd else lambda: None, worth)
    stops = any(outcome.error and outcome.needed for outcome in outcomes)
    if stops and in_initrd:
        settle()  # what stops the boot may end this as well
        _stop_boot(say)
    elif in_initrd:
        # and who opens a volume in an emergency shell does
        with log.telling("that no network is needed any longer"):
            init.say_over()
        _prepare_shutdown(exitrd.keep, say)
    if only:
        return not any(outcome.error for outcome in outcomes)
    if stage_name == "initrd":
        return not stops
    return not (config.problems or any(outcome.error for outcome in outcomes))


def _stop_boot(say: Callable[[str], None]) -> None:
    """Have the boot stop; where that cannot be, this stage's exit status is all there is to say so."""
    try:
        init.stop_boot()
    except (CryptpilotError, OSError) as error:
        say(f"the boot cannot be stopped: {log.reason(error)}")


def _prepare_shutdown(step: Callable[[], None], say: Callable[[str], None]) -> None:
    """Do what is for the end of this machine's day only: when that fails, the boot goes on."""
    try:
        step()
    except (CryptpilotError, OSError) as error:
        say(f"{log.reason(error)}; at shutdown the volume that the root is on is not closed before the power is off")

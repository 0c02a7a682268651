"""Running a stage: every volume brought up on its own thread, all within one deadline."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.errors import CryptpilotError, DeviceError, describe_bug
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.wait import Deadline, device_changes, network_changes, wait_for

if TYPE_CHECKING:
    from cryptpilot_boot.boot.plan import Plan
    from cryptpilot_boot.config import Volume

# A thread whose deadline is over may still be within the key provider's own timeout, or within cryptsetup.
_GRACE = 2.0  # seconds


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a volume fared. error: None when it is open. seconds: from the start of the stage."""

    volume: Volume
    stage: str
    seconds: float
    error: CryptpilotError | None = None
    was_open: bool = False


def run(plan: Plan, on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
    """Open the volumes of a stage; one that fails, hangs or is not there delays and fails no other.

    on_outcome: called for each volume as soon as it is known how it fared.
    """
    deadline = Deadline(plan.timeout)
    log.emit("start", facts={"volumes": len(plan.volumes), **_costs()})
    last = log.latest()
    prepared = threading.Semaphore(0)
    outcomes: dict[str, Outcome] = {}

    def bring_up(one: Volume) -> None:
        outcomes[one.volume] = outcome = _fate(one, plan.stage, deadline, prepared.release)
        on_outcome(outcome)

    if any(one.needs_network for one in plan.volumes):
        _in_background(lambda: _watch_network(deadline))
    threads = [_in_background(functools.partial(bring_up, one)) for one in plan.volumes]
    for _ in threads:
        prepared.acquire()
    log.emit("ready", facts=_costs())
    patience = Deadline(deadline.left() + _GRACE)
    for thread in threads:
        thread.join(patience.left())
    for one in plan.volumes:
        if one.volume not in outcomes:
            outcomes[one.volume] = stuck = Outcome(
                one, plan.stage, plan.timeout, _stuck(deadline, last.get(one.volume))
            )
            on_outcome(stuck)
    log.emit("done", facts={**_costs(), "peak_memory": process.peak_memory()})
    return [outcomes[one.volume] for one in plan.volumes]


def _costs() -> dict[str, object]:
    """Return what this process has cost so far: seconds since it was started, seconds of processor time."""
    return {"process_age": round(process.age(), 3), "cpu": round(process.cpu_seconds(), 3)}


def _in_background(work: Callable[[], None]) -> threading.Thread:
    # daemon: one that hangs must not keep the process from ending
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _fate(one: Volume, stage: str, deadline: Deadline, on_prepared: Callable[[], object]) -> Outcome:
    started = time.monotonic()
    error: CryptpilotError | None = None
    was_open = False
    try:
        was_open = not _bring_up(one, deadline, on_prepared)
    except CryptpilotError as failure:
        error = failure
    except Exception as bug:
        error = CryptpilotError(describe_bug(bug), "please report this")
    return Outcome(one, stage, time.monotonic() - started, error, was_open)


def _bring_up(one: Volume, deadline: Deadline, on_prepared: Callable[[], object]) -> bool:
    """Prepare, wait for the device, ask for the key, open. False when the volume was open already."""
    try:
        with log.timed("prepare", one.volume):
            process.lock_memory()
            ask = keys.prepare(one.encrypt)
    finally:
        on_prepared()
    _wait_for_device(one, deadline)

    def ask_passphrase() -> keys.Passphrase:
        with log.timed(log.FETCH_KEY, one.volume, **keys.describe(one.encrypt)):
            return keys.ask_until(ask, deadline, one.volume)

    return volume.open_volume(one, ask_passphrase)


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
    step = f"{last.step}: {last.facts.get('waiting_for') or last.facts.get('error') or 'at work'}" if last else "start"
    return CryptpilotError(
        f"not done within {deadline.total:.0f} s ({step})", "see what it did: cat /run/cryptpilot/events.jsonl"
    )

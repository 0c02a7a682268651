"""What is done for one volume at boot, from its name to its open device."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.keys.sources import Sources, named
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.wait import Deadline, device_changes, network_changes, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Encrypt, Volume
    from cryptpilot_boot.keys.race import Asked


@dataclasses.dataclass(frozen=True)
class Opened:
    """How a volume came to be open, and which of its sources gave the key: 0 for the first."""

    how: volume.Opening
    source: int = 0


def bring_up(
    one: Volume,
    deadline: Deadline,
    answers: keys.Answers,
    on_prepared: Callable[[], None],
    asking: Callable[[Volume], contextlib.AbstractContextManager[None]],
) -> Opened:
    """Prepare, wait for the device, ask for the key, open.

    asking: what asks for a key runs in it; raises in the end if the device must not be changed.
    """
    try:
        if volume.is_open(one):
            return Opened(volume.Opening.WAS_OPEN)
        with log.timed("prepare", one.volume):
            process.lock_memory()
            if one.fallbacks:
                sources = _sources(one, deadline, answers, asking)
                sources.prepare()
            else:
                ask = keys.prepare(one.encrypt)
    finally:
        on_prepared()
    _wait_for_device(one, deadline)
    if one.fallbacks:
        how = volume.open_volume(one, sources)
        return Opened(how, sources.opened_by or 0)

    def ask_passphrase() -> keys.Passphrase:
        with asking(one), log.timed(log.FETCH_KEY, one.volume, **keys.describe(one.encrypt)):
            return answers.ask(one.encrypt, ask, deadline, one.volume)

    previous = keys.previous(one.encrypt)
    if previous is None:
        return Opened(volume.open_volume(one, ask_passphrase))

    def ask_previous() -> keys.Passphrase:
        # prepared only now: hardly any boot comes here, and what takes long was done for the current value
        with asking(one), log.timed(log.FETCH_KEY, one.volume, **keys.describe(previous)):
            return answers.ask(previous, keys.prepare(previous), deadline, one.volume)

    return Opened(volume.open_volume(one, ask_passphrase, ask_previous=ask_previous))


def _sources(
    one: Volume,
    deadline: Deadline,
    answers: keys.Answers,
    asking: Callable[[Volume], contextlib.AbstractContextManager[None]],
) -> Sources:
    """Return what asks all sources of a volume, as `bring_up` asks one."""

    def prepare(source: Encrypt) -> Asked:
        ask = keys.prepare(source)
        return lambda: answers.ask(source, ask, deadline, one.volume)

    @contextlib.contextmanager
    def within() -> Iterator[None]:
        with asking(one), log.timed(log.FETCH_KEY, one.volume, provider=names):
            yield

    names = ", ".join(named(one, number) for number in range(len(one.sources)))
    return Sources(one, prepare, within)


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


def watch_network(deadline: Deadline) -> None:
    """Put the moment the network came up into the log: from here on all time is the key service's and ours."""
    with network_changes() as changes:
        if wait_for(lambda: network.has_route() or None, changes, deadline):
            log.emit("network-up")

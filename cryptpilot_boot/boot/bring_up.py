"""What is done for one volume at boot, from its name to its open device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.wait import Deadline, device_changes, network_changes, wait_for

if TYPE_CHECKING:
    import contextlib

    from cryptpilot_boot.config import Volume


def bring_up(
    one: Volume,
    deadline: Deadline,
    answers: keys.Answers,
    on_prepared: Callable[[], None],
    asking: Callable[[Volume], contextlib.AbstractContextManager[None]],
) -> volume.Opening:
    """Prepare, wait for the device, ask for the key, open.

    asking: what asks for a key runs in it; raises in the end if the device must not be changed.
    """
    try:
        if volume.is_open(one):
            return volume.Opening.WAS_OPEN
        with log.timed("prepare", one.volume):
            process.lock_memory()
            ask = keys.prepare(one.encrypt)
    finally:
        on_prepared()
    _wait_for_device(one, deadline)

    def ask_passphrase() -> keys.Passphrase:
        with asking(one), log.timed(log.FETCH_KEY, one.volume, **keys.describe(one.encrypt)):
            return answers.ask(one.encrypt, ask, deadline, one.volume)

    previous = keys.previous(one.encrypt)
    if previous is None:
        return volume.open_volume(one, ask_passphrase)

    def ask_previous() -> keys.Passphrase:
        # prepared only now: hardly any boot comes here, and what takes long was done for the current value
        with asking(one), log.timed(log.FETCH_KEY, one.volume, **keys.describe(previous)):
            return answers.ask(previous, keys.prepare(previous), deadline, one.volume)

    return volume.open_volume(one, ask_passphrase, ask_previous=ask_previous)


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

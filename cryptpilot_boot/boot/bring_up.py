"""What is done for one volume at boot, from its name to its open device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import log, tasks, volume
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.wait import device_changes, network_changes, wait_for

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.secret import Sources
    from cryptpilot_boot.system.wait import Deadline


def bring_up(one: Volume, deadline: Deadline, secret: Sources) -> volume.Opened:
    """Prepare, wait for the device, ask for the key, open; the work of a task, see `tasks`.

    deadline: limits the wait for the device.
    """
    with secret:
        try:
            if volume.is_open(one):
                return volume.Opened(volume.Opening.WAS_OPEN)
            with log.timed("prepare", one.volume):
                process.lock_memory()  # not only for the sources: a user may type a key
                secret.prepare()
        finally:
            tasks.prepared()
        _wait_for_device(one, deadline)
        return volume.open_volume(one, secret)


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

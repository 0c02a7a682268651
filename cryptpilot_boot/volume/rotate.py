"""Moving a volume to the current value of its secret.

A key slot for the current value is added and tried. Only then is the slot of the previous value removed. At every
moment one of the two values opens the volume, and running it again completes the job.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.errors import KeyFetchError, NoValue
from cryptpilot_boot.keys.failures import neither_opens, without_previous
from cryptpilot_boot.system import block, cryptsetup, lock
from cryptpilot_boot.volume import opening, pending, slots, state
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.opening import require_initialized
from cryptpilot_boot.volume.recovery import renew_proofs
from cryptpilot_boot.volume.sealing import follow

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase

_MOST_SLOTS = 32  # of a LUKS2 header
# To derive a key from a weak secret takes up to half of the memory, for each key slot that is tried, added or removed.
# cryptsetup does not wait for others in all of these cases. No network is waited for meanwhile.
_one_by_one = threading.Lock()


def rotate(volume: Volume, ask_passphrase: Callable[[], Passphrase], ask_previous: Callable[[], Passphrase]) -> bool:
    """Move a persistent volume, open or closed, from the previous value of its secret to the current one.

    ask_passphrase, ask_previous: ask for the two values. Returns False if nothing had to be changed. A key slot that
    neither value opens is kept.
    """
    with lock.held(volume.volume):
        device = block.look_up(volume.dev)
        require_initialized(volume, state.look(device.node))
        with ask_passphrase() as current:
            with _one_by_one:
                slot = slots.taking(volume, device, current)
            try:
                with ask_previous() as previous, _one_by_one:
                    changed = _move(volume, device, slot, current, previous)
                    renew_proofs(volume, device, previous, current)
            except KeyFetchError as error:
                if slot is None:
                    raise without_previous(volume, error) from None
                if not isinstance(error, NoValue):
                    raise
                changed = False
        pending.note(volume.volume, pending=False)
        return changed


def _move(volume: Volume, device: block.Device, slot: int | None, current: Passphrase, previous: Passphrase) -> bool:
    """Remove the key slots of the previous value. slot: that of the current value, None if it has none yet."""
    hint = (
        f"the volume opens as before; look at its key slots (cryptsetup luksDump {volume.dev}), then again:"
        f" cryptpilot rotate {volume.volume}"
    )
    old = slots.taking(volume, device, previous)
    if slot is None:
        if old is None:
            raise neither_opens(volume)
        with (
            log.timed("add-key", volume.volume, device=volume.dev),
            telling(volume, "cannot be given a new key slot", hint),
        ):
            cryptsetup.add_key(device.node, previous, current)
        # the checks of the next opening, on what the device holds now
        slot = opening.find_slot(volume, device, current)
        changed = True
    else:
        changed = False
    with telling(volume, "keeps the old key slot", hint):
        follow(volume, device, previous, old, current, slot)
    with log.timed("remove-key", volume.volume, device=volume.dev), telling(volume, "keeps the old key slot", hint):
        for _ in range(_MOST_SLOTS):
            # two values may be the same key: equal ones, or to PBKDF2 ones that differ in NULs at the end
            if old is None or old == slot:
                break
            cryptsetup.kill_slot(device.node, old, current)
            changed = True
            old = slots.taking(volume, device, previous)
    return changed

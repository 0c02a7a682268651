"""Adding a key slot for another source of a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, cryptsetup, lock
from cryptpilot_boot.volume import opening, slots, state
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.recovery import require_persistent
from cryptpilot_boot.volume.secret import with_secret

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase


def enroll_source(volume: Volume, ask_new: Asked, secret: Secret) -> bool:
    """Add a key slot for the secret of a source to a persistent volume, open or closed.

    ask_new: asks that source. secret: gives a key that opens the volume; no slot is added without one. No slot is
    removed. Returns False if a slot takes the secret already. After a power cut the slot is there or not: run it again.
    """
    require_persistent(volume)
    with lock.held(volume.volume):
        device = block.look_up(volume.dev)
        if slots.facts(volume, device).reencrypting:
            raise DeviceError(
                f"{volume.dev} takes no other key now: it has two volume keys", state.reencryption(volume)
            )
        with ask_new() as new:
            if slots.taking(volume, device, new) is not None:
                return False

            def add(passphrase: Passphrase) -> None:
                opening.find_slot(volume, device, passphrase)  # raises unless a slot takes it: nothing is changed then
                hint = f"nothing was removed; see its key slots: cryptsetup luksDump {volume.dev}"
                with (
                    log.timed("add-key", volume.volume, device=volume.dev),
                    telling(volume, "cannot be given a key slot", hint),
                ):
                    cryptsetup.add_key(device.node, passphrase, new)

            with_secret(secret, add)
            # the checks of the next opening, on what the device holds now
            opening.find_slot(volume, device, new)
        return True

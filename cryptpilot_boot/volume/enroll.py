"""Giving a volume a key slot for one of its sources, beside those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, cryptsetup, lock
from cryptpilot_boot.volume import opening, slots, state
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.recovery import require_persistent

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.sources import Secret
    from cryptpilot_boot.passphrase import Passphrase


def enroll_source(volume: Volume, ask_new: Asked, secret: Secret, ask_previous: Asked | None) -> bool:
    """Have a persistent volume, open or closed, take the secret of a source too; False when it does so already.

    ask_new: asks that source. secret, ask_previous: what opens the volume, as of `open_volume`: no key slot is added
    without a key that one takes. None is removed. A power cut leaves the slot there, or not; then run it again.
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
                opening.find_slot(volume, device, passphrase)  # nothing is done unless there is one
                hint = f"nothing was removed; see its key slots: cryptsetup luksDump {volume.dev}"
                with (
                    log.timed("add-key", volume.volume, device=volume.dev),
                    telling(volume, "cannot be given a key slot", hint),
                ):
                    cryptsetup.add_key(device.node, passphrase, new)

            opening.with_either_value(volume, secret, ask_previous, add)
            # as the next opening will: by what the device holds now, and only if that is sound
            opening.find_slot(volume, device, new)
        return True

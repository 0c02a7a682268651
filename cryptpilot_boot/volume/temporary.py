"""Temporary volumes: each open formats the device with a new key, and makes the file system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.system import block, cryptsetup
from cryptpilot_boot.volume import state
from cryptpilot_boot.volume.failure import telling_a_wrong_secret
from cryptpilot_boot.volume.found import moved
from cryptpilot_boot.volume.initialize import make
from cryptpilot_boot.volume.sizes import require_makable

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase


def require_usable(volume: Volume) -> block.Device:
    """Return the device of a volume. Raises CryptpilotError unless it may be formatted, and is large enough."""
    with log.timed("probe", volume.volume, device=volume.dev):
        device = block.look_up(volume.dev)
        block.require_unused(device.node)
        found = state.look(device.node)
        require_makable(volume, device)
        if refusal := state.not_ours_to_overwrite(volume, found):
            raise refusal
        return device


def prepared(volume: Volume) -> Callable[[Passphrase], None]:
    """Check the device of a volume, and return what makes the volume and opens it with a passphrase.

    The device is checked again right before it is written to: the passphrase may have taken long.
    """
    device = require_usable(volume)

    def require_unchanged() -> None:
        if require_usable(volume) != device:
            raise moved(volume.dev)

    def make_and_open(passphrase: Passphrase) -> None:
        header = make(volume, device, passphrase, mark=state.TEMPORARY, before_writing=require_unchanged)
        # after a power cut nothing of it is read again: integrity needs no journal
        journal = not volume.integrity
        with (
            header,
            log.timed("open", volume.volume, device=volume.dev),
            telling_a_wrong_secret(volume),
        ):
            cryptsetup.luks_open(
                device.node, volume.volume, passphrase, header, journal=journal, discard=volume.discard
            )

    return make_and_open

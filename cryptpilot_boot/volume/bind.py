"""Binding a volume to what its device holds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, lock
from cryptpilot_boot.volume import identity, opening, state
from cryptpilot_boot.volume.recovery import require_persistent
from cryptpilot_boot.volume.secret import with_secret

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Identity, Volume
    from cryptpilot_boot.keys.secret import Secret


def bind(
    volume: Volume,
    path: Path,
    secret: Secret,
) -> Identity:
    """Bind a persistent volume, open or closed, to what its device holds, and return that.

    path: the file to write it to. The header has to be sound, and the secret has to open it. If a step fails, the old
    binding stays.
    """
    require_persistent(volume)
    unbound = dataclasses.replace(volume, identity=None)
    with lock.held(volume.volume):
        device = block.look_up(volume.dev)
        # the copy that was checked is the one that is used: the disk may answer the next read with another
        header, facts = opening.initialized_header(unbound, device)
        with header:
            if facts.reencrypting:
                # only the disk says that its two volume keys belong together
                raise DeviceError(
                    f"{volume.dev} cannot be bound to yet: it has two volume keys", state.reencryption(volume)
                )
            with_secret(secret, lambda passphrase: opening.slot_in(unbound, device, header, passphrase))
        found = identity.of(facts, path)
        identity.write(volume, found)
        return found

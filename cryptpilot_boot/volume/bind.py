"""Binding a volume to what its device holds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, lock
from cryptpilot_boot.volume import identity, opening, state
from cryptpilot_boot.volume.recovery import require_persistent

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Identity, Volume
    from cryptpilot_boot.keys.sources import Secret
    from cryptpilot_boot.passphrase import Passphrase


def bind(
    volume: Volume,
    path: Path,
    ask_passphrase: Secret,
    ask_previous: Callable[[], Passphrase] | None,
) -> Identity:
    """Bind a persistent volume, open or closed, to what its device holds, and return that.

    path: the file to write it to. ask_passphrase, ask_previous: as for `open_volume`. The header has to be sound, and
    one of the two values has to open it. If a step fails, the old binding stays.
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
            opening.with_either_value(
                unbound,
                ask_passphrase,
                ask_previous,
                lambda passphrase: opening.slot_in(unbound, device, header, passphrase),
            )
        found = identity.of(facts, path)
        identity.write(volume, found)
        return found

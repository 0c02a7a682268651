"""Making a persistent volume: LUKS2 header, file system, mark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.system import block, cryptsetup, mkfs
from cryptpilot_boot.volume import state

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase


def initialize(volume: Volume, ask_passphrase: Callable[[], Passphrase]) -> None:
    """Format the device of a persistent volume and make its file system.

    Everything that can be refused is refused before the passphrase is asked for, and asked again right before the
    device is written to. After a power cut the header says `cryptpilot-initializing`, and this can be run again.
    """
    require_formattable(volume)
    with ask_passphrase() as passphrase:
        require_formattable(volume)
        make(volume, passphrase, mark=state.INITIALIZING)
    cryptsetup.set_subsystem(volume.dev, state.COMPLETE)


def make(volume: Volume, passphrase: Passphrase, *, mark: str) -> None:
    """Write the LUKS2 header, with `mark` as its subsystem, and make the file system; leaves the volume closed."""
    with log.timed("format", volume.volume, device=volume.dev):
        cryptsetup.luks_format(volume.dev, passphrase, subsystem=mark)
    if not volume.makefs:
        return
    # Under a name of its own: whoever waits for the real one (fstab, say) shall find it complete.
    name = _working_name(volume)
    with log.timed("makefs", volume.volume, kind=volume.makefs):
        cryptsetup.luks_open(volume.dev, name, passphrase)
        try:
            # With a volume key that is new, whatever the old bytes now look like is chance.
            mkfs.make(volume.makefs, f"/dev/mapper/{name}")
        finally:
            cryptsetup.close(name)


def require_formattable(volume: Volume) -> None:
    """Raise unless the device may be formatted: nothing is destroyed unproven."""
    require_supported(volume)
    if volume.temporary:
        raise CryptpilotError(
            f'volume "{volume.volume}" needs no init: it is temporary and is made anew at each open',
            f"open it: cryptpilot open {volume.volume}",
        )
    block.require_block_device(volume.dev)
    if state.is_open(volume):
        raise DeviceError(
            f'volume "{volume.volume}" is open',
            f"it is initialized already; close it: cryptpilot close {volume.volume}",
        )
    close_leftover(volume)
    block.require_unused(volume.dev)
    found = block.signature(volume.dev)
    if found is None or found.subsystem == state.INITIALIZING:
        return
    if found.subsystem == state.COMPLETE:
        raise DeviceError(
            f'volume "{volume.volume}": {volume.dev} is initialized already',
            f"open it: cryptpilot open {volume.volume}",
        )
    raise DeviceError(
        f"{volume.dev} holds {state.describe(found)}; init would destroy it",
        f"if nobody needs that any more: wipefs --all {volume.dev}",
    )


def close_leftover(volume: Volume) -> None:
    """Remove the mapping that a run which was killed left behind; it fails if that run is still at work."""
    mapping = block.mapping(_working_name(volume))
    if mapping and block.encrypts(mapping, volume.dev):
        cryptsetup.close(mapping.name)


def _working_name(volume: Volume) -> str:
    return f"{volume.volume}-initializing"


def require_supported(volume: Volume) -> None:
    """Raise for what the configuration may ask of a new volume and this version cannot do yet."""
    if volume.integrity:
        raise CryptpilotError(
            f'volume "{volume.volume}": integrity = true is not supported by this version',
            "leave integrity out to make the volume without it",
        )
    if volume.makefs and volume.makefs not in mkfs.COMMANDS:
        raise CryptpilotError(
            f'volume "{volume.volume}": makefs = "{volume.makefs}" is not supported by this version',
            f"supported are: {', '.join(mkfs.COMMANDS)}",
        )

"""Opening and closing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.system import block, cryptsetup
from cryptpilot_boot.volume import state
from cryptpilot_boot.volume.initialize import close_leftover, make, require_supported

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase


def open_volume(volume: Volume, ask_passphrase: Callable[[], Passphrase]) -> bool:
    """Open a volume; False when it was open already.

    The device is looked at first, so that the key provider is not asked in vain.
    """
    block.require_block_device(volume.dev)
    if state.is_open(volume):
        return False
    require_openable(volume)
    with ask_passphrase() as passphrase:
        unlock(volume, passphrase)
    return True


def require_openable(volume: Volume) -> None:
    """Raise unless the device holds what `open` needs: a complete volume, or for a temporary one nothing."""
    found = block.signature(volume.dev)
    if volume.temporary:
        require_supported(volume)
        close_leftover(volume)
        block.require_unused(volume.dev)
        refusal = state.not_ours_to_overwrite(volume, found)
        if refusal:
            raise DeviceError(refusal, f"if nobody needs that any more: wipefs --all {volume.dev}")
        return
    if found is None or found.kind != "crypto_LUKS":
        holds = "nothing" if found is None else state.describe(found)
        raise DeviceError(
            f"{volume.dev} is not initialized: it holds {holds}",
            f"initialize it first: cryptpilot init {volume.volume}",
        )
    if found.subsystem == state.INITIALIZING:
        raise DeviceError(
            f"{volume.dev} is not completely initialized: init was interrupted",
            f"run it again: cryptpilot init {volume.volume}",
        )
    if found.subsystem != state.COMPLETE:
        raise DeviceError(
            f"{volume.dev} holds {state.describe(found)}",
            'check "dev" in the configuration: this is no volume made by cryptpilot init',
        )


def unlock(volume: Volume, passphrase: Passphrase) -> None:
    """Open the device with the passphrase; a temporary volume is made anew first."""
    if volume.temporary:
        make(volume, passphrase, mark=state.TEMPORARY)
    with log.timed("open", volume.volume, device=volume.dev):
        try:
            cryptsetup.luks_open(volume.dev, volume.volume, passphrase)
        except ProgramError as error:
            if error.status != cryptsetup.WRONG_PASSPHRASE:
                raise
            raise CryptpilotError(
                f"the secret does not open {volume.dev}: no key slot takes it",
                "check that secret_name names the secret the volume was initialized with, and that its value has"
                " not changed since",
            ) from None


def close(volume: Volume) -> bool:
    """Close a volume; False when it was closed already."""
    if not state.is_open(volume):
        return False
    with log.timed("close", volume.volume):
        try:
            cryptsetup.close(volume.volume)
        except ProgramError as error:
            raise CryptpilotError(
                f"{volume.mapper_path} cannot be closed: {error.what}",
                f"unmount it first; see who uses it: lsblk {volume.mapper_path}; fuser --mount {volume.mapper_path}",
            ) from None
    return True

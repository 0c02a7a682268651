"""Opening persistent volumes, and closing volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.system import block, cryptsetup, lock, luks_data, luks_header, mkfs, partition
from cryptpilot_boot.volume import mapping, opened, pending, state, temporary, unmarked
from cryptpilot_boot.volume.failure import telling_a_wrong_secret
from cryptpilot_boot.volume.found import moved
from cryptpilot_boot.volume.mapping import close_leftover
from cryptpilot_boot.volume.secret import Opened, Opening, with_secret

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase


def open_volume(
    volume: Volume,
    secret: Secret,
    *,
    check_fs: bool = False,
) -> Opened:
    """Open a volume by the first answer of its secret that a key slot takes.

    The device is checked before a key provider is asked. check_fs: check the file system before it can be mounted.
    Raises CryptpilotError.
    """
    with lock.held(volume.volume):
        if state.is_open(volume):
            return Opened(Opening.WAS_OPEN)
        close_leftover(volume)
        unlock = temporary.prepared(volume) if volume.temporary else _prepared(volume, check_fs=check_fs)
        _, result = with_secret(secret, unlock)
        by = result.source
        opened.note_source(volume.volume, "" if by is None or not volume.fallbacks else volume.source_name(by))
        if by is not None and keys.previous(volume.sources[by]):
            pending.note(volume.volume, pending=result.how is Opening.PREVIOUS)
        return result


def require_openable(volume: Volume) -> block.Device:
    """Return the device of a volume. Raises CryptpilotError unless it can be opened or, if temporary, made."""
    if volume.temporary:
        return temporary.require_usable(volume)
    device, header = _openable(volume)
    header.close()
    return device


def _openable(volume: Volume) -> tuple[block.Device, luks_header.Header]:
    """Return the device of a persistent volume, and a copy of its header that was checked. Raises DeviceError."""
    with log.timed("probe", volume.volume, device=volume.dev):
        device = block.look_up(volume.dev)
        block.require_unused(device.node)
        require_initialized(volume, state.look(device.node))
        header = _sound_header(volume, device)
        misfit = state.misfit(volume, device, header)
        if misfit:
            header.close()
            raise misfit
        return device, header


def _prepared(volume: Volume, *, check_fs: bool) -> Callable[[Passphrase], None]:
    """Check the device of a persistent volume, and return what opens the volume with a passphrase.

    Both device and header are checked again at that time, and this header is used: the passphrase may have taken long.
    """
    device = _fitting(volume)

    def unlock(passphrase: Passphrase) -> None:
        now, header = _openable(volume)
        with header:
            if now != device:
                raise moved(volume.dev)
            if check_fs and volume.makefs and mkfs.KINDS[volume.makefs].check:
                _check_fs(volume, volume.makefs, device, passphrase, header)
            with log.timed("open", volume.volume, device=volume.dev):
                with telling_a_wrong_secret(volume):
                    cryptsetup.luks_open(
                        device.node, volume.volume, passphrase, header, journal=True, discard=volume.discard
                    )
                opened.note(volume.volume, luks_data.volume_key(header))

    return unlock


def _fitting(volume: Volume) -> block.Device:
    """Return the device as `require_openable` does, after its size was made to fit the sectors of the volume.

    A partition that growpart enlarged ends where the backup partition table begins, which may be within a sector of the
    volume. cryptsetup does not open such a device. So the kernel is asked to end the partition a few sectors earlier.
    """
    device, header = _openable(volume)
    with header:
        excess = luks_data.excess(header, device.size)
    if not excess:
        return device
    partition.shorten(device, device.size - excess)
    return block.look_up(volume.dev)


def initialized_header(volume: Volume, device: block.Device) -> tuple[luks_header.Header, luks_header.Facts]:
    """Return a copy of the header of a complete persistent volume, open or closed, and what it says.

    The caller closes the copy. Raises DeviceError if there is no such header, or it is not trustworthy.
    """
    with log.timed("probe", volume.volume, device=volume.dev):
        require_initialized(volume, state.look(device.node))
        return checked_header(volume, device.node, volume.dev)


def require_initialized(volume: Volume, found: block.Signature | None) -> None:
    """Raise DeviceError unless a device holds a complete persistent volume. found: its content."""
    if found is None or found.kind != "crypto_LUKS":
        backup = f"put a backup of that back: cryptpilot header restore {volume.volume} FILE"
        raise DeviceError(
            f"{volume.dev} is not initialized: it holds {state.describe(found)}",
            f"if it is converted in place, that was interrupted: {state.again(volume.volume)}; if its header is lost,"
            f" {backup}"
            if volume.identity
            else f"initialize it first: cryptpilot init {volume.volume}; or, if it was initialized and the header is"
            f" lost, {backup}",
        )
    if found.subsystem == state.INITIALIZING:
        raise DeviceError(
            f"{volume.dev} is not completely initialized: init was interrupted",
            f"run it again: cryptpilot init {volume.volume}",
        )
    if found.subsystem == state.CONVERTING:
        raise state.unconverted(volume.dev, volume.volume)
    if unmarked.is_unmarked(found):
        raise unmarked.refusal(volume, found)
    if found.subsystem != state.COMPLETE:
        raise DeviceError(
            f"{volume.dev} holds {state.describe(found)}",
            'check "dev" in the configuration: this is no volume made by cryptpilot init',
        )


def _sound_header(volume: Volume, device: block.Device) -> luks_header.Header:
    """Return a copy of the header of a device. Raises DeviceError for a header that cryptpilot does not write."""
    return checked_header(volume, device.node, volume.dev)[0]


def checked_header(volume: Volume, path: str, name: str) -> tuple[luks_header.Header, luks_header.Facts]:
    """Copy the header at the beginning of a device or a file. The caller closes the copy.

    name: the device or file, as a person knows it. Raises DeviceError for a header that cryptpilot does not write.
    """
    header, facts = luks_header.copy_from(path, name)
    refusal = state.objection(volume, facts, name)
    if refusal:
        header.close()
        raise refusal
    return header, facts


def verify(
    volume: Volume,
    secret: Secret,
) -> Opened:
    """Try the secret of a persistent volume as `open_volume` does, without opening the volume.

    Raises CryptpilotError if no key slot takes it.
    """
    device = block.look_up(volume.dev)
    return with_secret(secret, lambda passphrase: find_slot(volume, device, passphrase))[1]


def find_slot(volume: Volume, device: block.Device, passphrase: Passphrase) -> int:
    """Return the number of the key slot that takes a passphrase. Raises WrongSecret if no slot does."""
    with log.timed("probe", volume.volume, device=volume.dev):
        checked = _sound_header(volume, device)
    with checked as header:
        return slot_in(volume, device, header, passphrase)


def slot_in(volume: Volume, device: block.Device, header: luks_header.Header, passphrase: Passphrase) -> int:
    """Do what `find_slot` does, with a copy of the header that was checked."""
    with log.timed("verify", volume.volume, device=volume.dev), telling_a_wrong_secret(volume):
        return cryptsetup.verify(device.node, passphrase, header)


def _check_fs(
    volume: Volume, kind: str, device: block.Device, passphrase: Passphrase, header: luks_header.Header
) -> None:
    """Check the file system under the working name, so that it cannot be mounted. Raises CryptpilotError on damage."""
    with log.timed("check-fs", volume.volume, kind=kind, device=volume.dev):
        with telling_a_wrong_secret(volume):
            opened = mapping.opened(volume, device, passphrase, header)
        with opened as path:
            damage = mkfs.check(kind, path)
        if damage:
            raise CryptpilotError(
                f"the {kind} file system of volume {volume.volume} is damaged: {damage}",
                "the volume was left closed; open it without --check-fs to repair the file system",
            )


def close(volume: Volume) -> bool:
    """Close a volume. Returns False if it was closed before."""
    if not state.is_open(volume):
        return False
    with lock.held(volume.volume), log.timed("close", volume.volume):
        try:
            cryptsetup.close(volume.volume)
            opened.forget(volume.volume)
        except ProgramError as error:
            raise CryptpilotError(
                f"{volume.mapper_path} cannot be closed: {error.what}",
                f"unmount it first; see who uses it: lsblk {volume.mapper_path}; fuser --mount {volume.mapper_path}",
            ) from None
    return True

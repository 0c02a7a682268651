"""Backups of a volume's header: save one, and restore it to the device that it provably belongs to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError, WrongSecret
from cryptpilot_boot.system import block, cryptsetup, header_file, lock, luks_header
from cryptpilot_boot.volume import identity, mapping, opening, state
from cryptpilot_boot.volume.found import changed
from cryptpilot_boot.volume.mapping import close_leftover
from cryptpilot_boot.volume.recovery import require_persistent
from cryptpilot_boot.volume.secret import with_secret

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase


class WrongBackup(WrongSecret):
    """No key slot of a backup takes a passphrase; the device was not tried."""


@dataclasses.dataclass(frozen=True)
class Restoration:
    """A device on which a header may be restored. Equal values mean that nothing changed in between.

    found: what the device holds. proven: whether its present header is of the same volume.
    """

    device: block.Device
    found: block.Signature | None
    proven: bool


def backup(volume: Volume, path: Path) -> None:
    """Save the header of a persistent volume, open or closed, in a new file. A faulty copy is removed."""
    require_persistent(volume)
    with lock.held(volume.volume), log.timed("backup-header", volume.volume, device=volume.dev):
        device = block.look_up(volume.dev)
        header, facts = opening.initialized_header(volume, device)
        header.close()
        with header_file.saving(device.node, path, facts.size) as written:
            if _facts(written) != facts:
                raise CryptpilotError(f"{path}: the written file is not the header of {volume.dev}", "run it again")


def _facts(path: str) -> luks_header.Facts | None:
    """Return the facts of the header in a file, None if the file has no usable header."""
    try:
        header, facts = luks_header.copy_from(path)
    except DeviceError:
        return None
    header.close()
    return facts


def require_restorable(volume: Volume, path: Path, overwrite: frozenset[str]) -> Restoration:
    """Return what a backup would overwrite. Raises CryptpilotError unless that is permitted.

    overwrite: kinds of data, as libblkid names them ("ext4"), that may be in the place of the header.
    """
    require_persistent(volume)
    with lock.held(volume.volume), header_file.load(path) as saved:
        return _look(volume, saved, path, overwrite)


def restore(
    volume: Volume,
    path: Path,
    agreed: Restoration,
    overwrite: frozenset[str],
    secret: Secret | None,
    *,
    by_recovery_key: bool = False,
) -> None:
    """Restore the header of a closed persistent volume.

    agreed: what `require_restorable` returned. secret: a backup that it does not open is not restored. If the present
    header does not prove that the backup belongs there, the device is opened by the backup, and has to hold a file
    system. None skips these proofs. by_recovery_key: whether the secret is a recovery key. It can be run again after a
    power cut.
    """
    with lock.held(volume.volume), header_file.load(path) as saved:
        if _look(volume, saved, path, overwrite) != agreed:
            raise changed(volume.dev)
        if secret:
            prove = _prove_key if agreed.proven else _prove
            try:
                with_secret(secret, lambda passphrase: prove(volume, agreed.device, saved, path, passphrase))
            except WrongSecret:
                if not by_recovery_key:
                    raise
                raise CryptpilotError(
                    f"no key slot in {path} takes this recovery key, so nothing proves that the file opens"
                    f" {volume.dev}",
                    "nothing was changed; the key has no typing error, but is another volume's, or was not this"
                    f" one's when the file was saved; without --recovery-key, the secret is tried; {_ANYHOW}",
                ) from None
        with log.timed("restore-header", volume.volume, device=volume.dev):
            try:
                header_file.restore(agreed.device.node, saved)
            except ProgramError as error:
                raise CryptpilotError(
                    f"the header cannot be put back on {volume.dev}: {error.what.replace(saved.path, str(path))}",
                    error.hint
                    or f"{path} is as it was; see what the kernel says of the disk (dmesg), and run it again",
                ) from None
            opening.initialized_header(volume, agreed.device)[0].close()


def _look(volume: Volume, saved: luks_header.Header, path: Path, overwrite: frozenset[str]) -> Restoration:
    device = block.look_up(volume.dev)
    if state.is_open(volume):
        raise DeviceError(
            "is open, and can be read as it is",
            f"if its header is damaged, copy the data first; then close it: cryptpilot close {volume.volume}",
        )
    close_leftover(volume)
    block.require_unused(device.node)
    if luks_header.mark(saved.path) != state.COMPLETE:
        raise CryptpilotError(
            f"{path}: is not a backup of the header of a cryptpilot volume",
            f"see what it is: cryptsetup luksDump {path}",
        )
    facts = _saved_facts(volume, saved, path)
    if device.size < facts.room:
        raise DeviceError(
            f"{path} is of a larger device: it needs {block.readable(facts.room)}, and {volume.dev} has"
            f" {block.readable(device.size)}",
            'check "dev" in the configuration',
        )
    found = state.look(device.node)
    if found and found.subsystem == state.CONVERTING:
        raise state.unconverted(volume.dev, volume.volume)
    _require_no_others(volume, found, overwrite)
    restoration = Restoration(device, found, proven=_is_the_same(volume, device, facts, path))
    _require_bound(volume, facts, path)
    return restoration


def _saved_facts(volume: Volume, saved: luks_header.Header, path: Path) -> luks_header.Facts:
    """Return what the header in a backup says. Raises CryptpilotError when it is damaged, or not to be trusted."""
    another = "nothing was changed; put back another backup, if there is one"
    try:
        header, facts = luks_header.copy_from(saved.path, f"{path} is no whole backup")
    except luks_header.Distrusted as error:
        reason = error.reason
    except DeviceError as error:
        raise CryptpilotError(error.what, another) from None
    else:
        header.close()
        reason = state.distrust(volume, facts)
        if not reason:
            return facts
    raise CryptpilotError(
        f"the header in {path} is not to be trusted: {reason}",
        f"unless you know who changed it, treat this file as tampered with; {another}",
    )


def _require_bound(volume: Volume, saved: luks_header.Facts, path: Path) -> None:
    """Raise CryptpilotError if a backup is not of the volume that the name is bound to."""
    objection = identity.objection(volume, saved, str(path))
    if objection and volume.identity:
        raise CryptpilotError(
            objection.what,
            f"nothing was changed; to make {volume.volume} the volume of this file: rm {volume.identity.source},"
            f" put the header back, then cryptpilot bind {volume.volume}",
        )


def _require_no_others(volume: Volume, found: block.Signature | None, overwrite: frozenset[str]) -> None:
    """Raise DeviceError unless the place of the header is empty, has a LUKS2 header, or data named in `overwrite`."""
    if found is None or (found.kind, found.version) == ("crypto_LUKS", "2") or found.kind in overwrite:
        return
    raise DeviceError(
        f"{volume.dev} holds {state.describe(found)}, of which the first {block.readable(luks_header.SIZE)} would be"
        " overwritten",
        f"if it is not needed, give --overwrite {found.kind}",
    )


def _is_the_same(volume: Volume, device: block.Device, saved: luks_header.Facts, path: Path) -> bool:
    """Tell whether the present header of a device is of the same volume as the backup.

    False if it is lost, damaged or not trustworthy. Raises DeviceError if it is another volume's.
    """
    try:
        header, facts = luks_header.copy_from(device.node)
    except DeviceError:
        return False
    header.close()
    if (facts.volume_keys, facts.layout) == (saved.volume_keys, saved.layout):
        return True
    raise DeviceError(
        f"{path} is of another volume (UUID {saved.uuid}) than the one on {volume.dev} (UUID {facts.uuid}): its"
        " data are encrypted with another key, and could never be read again",
        "nothing was changed; a backup from before the last init is of no use",
    )


def _prove_key(
    volume: Volume, device: block.Device, saved: luks_header.Header, path: Path, passphrase: Passphrase
) -> None:
    """Raise unless a key slot of the backup takes the passphrase."""
    header, _ = opening.checked_header(volume, saved.path, str(path))
    with header:
        try:
            cryptsetup.verify(device.node, passphrase, header)
        except ProgramError as error:
            if error.status != cryptsetup.WRONG_PASSPHRASE:
                raise CryptpilotError(
                    f"{path} cannot be tried: {cryptsetup.said(error, str(path))}", error.hint
                ) from None
            raise WrongBackup(
                f"{path} is older than the secret: none of its key slots takes the secret, so {volume.dev} could"
                " not be opened with it",
                f"the present header is whole; if you have a recovery key of that time: --recovery-key; {_ANYHOW}",
            ) from None


_ANYHOW = "if you are sure that it belongs there: --force"


def _prove(volume: Volume, device: block.Device, saved: luks_header.Header, path: Path, passphrase: Passphrase) -> None:
    """Open the device read-only by the backup, under its working name. Raises unless it holds a file system."""
    header, _ = opening.checked_header(volume, saved.path, str(path))
    with header:
        try:
            opened = mapping.opened(volume, device, passphrase, header, readonly=True)
        except ProgramError as error:
            if error.status != cryptsetup.WRONG_PASSPHRASE:
                said = cryptsetup.said(error, str(path))
                raise CryptpilotError(
                    f"{path} is not proven to belong to {volume.dev}, which cannot be opened by it: {said}",
                    _ANYHOW,
                ) from None
            raise WrongBackup(
                f"{path} is not proven to belong to {volume.dev}: no key slot in it takes this secret",
                f"it may be older than the secret; if you have a recovery key: --recovery-key; {_ANYHOW}",
            ) from None
        with opened as place:
            try:
                inside = block.signature(place)
                seen = "no file system" if inside is None else state.describe(inside)
            except DeviceError as error:
                inside, seen = None, f"no file system ({error.what})"
    if inside is None or inside.kind != (volume.makefs or inside.kind):
        raise DeviceError(
            f"{path} is not proven to belong to {volume.dev}: opened by it, there is {seen}",
            f'check "dev" in the configuration; {_ANYHOW}',
        )

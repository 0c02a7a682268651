"""Adopting a LUKS2 volume that another program made, with all its data.

A mark in the header makes a volume one of cryptpilot's. It is written last: the secret has opened the header before,
with the checks of every opening, and the name is bound to the volume. So there is no moment at which a marked volume is
not bound. cryptsetup writes one copy of the header after the other. After a power cut the mark is there or not, and
adopting again completes the job. Only the mark is changed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.system import block, cryptsetup, lock, luks_header
from cryptpilot_boot.volume import identity, mapping, opening, state, unmarked
from cryptpilot_boot.volume.failure import telling, telling_a_wrong_secret
from cryptpilot_boot.volume.mapping import close_leftover
from cryptpilot_boot.volume.secret import with_secret

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Identity, Volume
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase


@dataclasses.dataclass(frozen=True)
class Adopted:
    """The result of an adoption.

    identity: what the name is bound to. unbound: why it could not be bound, None if it was. marked: whether the mark
    was there before. inside: what the volume holds, in words; "" if the volume is in use and was not opened.
    """

    identity: Identity
    unbound: CryptpilotError | None
    marked: bool
    inside: str


def adopt(
    volume: Volume,
    path: Path,
    secret: Secret,
) -> Adopted:
    """Mark what the device of a persistent volume holds as this volume, and bind the name to it.

    The volume may be open. path: the file to write the binding to. The secret has to open the header, with the checks
    of every opening. Nothing is changed if a step before the mark fails.
    """
    _require_persistent(volume)
    with lock.held(volume.volume):
        device = block.look_up(volume.dev)
        with log.timed("probe", volume.volume, device=volume.dev):
            found = state.look(device.node)
            _require_adoptable(volume, found)
            label = _label(volume, device)
            # the binding is checked below, with a hint of its own
            unbound = dataclasses.replace(volume, identity=None)
            header, facts = _checked(unbound, device)
        with header:
            if another := unmarked.another(volume, facts):
                raise another
            if facts.reencrypting:
                raise DeviceError(
                    f"{volume.dev} cannot be adopted yet: it has two volume keys", state.reencryption(volume)
                )

            def prove(passphrase: Passphrase) -> str:
                opening.slot_in(unbound, device, header, passphrase)
                return _look_inside(volume, device, passphrase, header)

            inside, _ = with_secret(secret, prove)
        bound = identity.of(facts, path)
        failed = _bind(volume, bound)
        marked = found is not None and found.subsystem == state.COMPLETE
        if not marked:
            again = f"nothing else was changed; again: cryptpilot adopt {volume.volume}"
            with log.timed("mark", volume.volume, device=volume.dev), telling(volume, "cannot be marked", again):
                cryptsetup.set_subsystem(device.node, state.COMPLETE, label=label)
        # the checks of the next opening
        as_bound = dataclasses.replace(volume, identity=None if failed else bound)
        opening.initialized_header(as_bound, device)[0].close()
        return Adopted(bound, failed, marked, inside)


def _require_persistent(volume: Volume) -> None:
    if volume.temporary:
        raise CryptpilotError(
            "is temporary: each open recreates it, and the data on its disk cannot be kept",
            f"if the data are to be kept, its file needs another [encrypt] table than [encrypt.otp]; if not:"
            f" cryptpilot open {volume.volume}",
        )


def _require_adoptable(volume: Volume, found: block.Signature | None) -> None:
    """Raise DeviceError unless a device may hold this volume. found: its content."""
    if found is None or found.kind != "crypto_LUKS" or found.version not in ("1", "2"):
        raise DeviceError(
            f"{volume.dev} holds {state.describe(found)}: there is no LUKS2 volume to adopt",
            'check "dev" in the configuration: it is the device with the LUKS2 header (lsblk --fs), not the mapping',
        )
    if found.version != "2":
        raise unmarked.refusal(volume, found)
    if found.subsystem in (state.INITIALIZING, state.TEMPORARY, state.CONVERTING):
        # the key of a temporary volume is not known, and an interrupted init left no data
        opening.require_initialized(volume, found)


def _checked(volume: Volume, device: block.Device) -> tuple[luks_header.Header, luks_header.Facts]:
    """Do what `opening.checked_header` does. Another program's choices are no sign of tampering here."""
    try:
        return opening.checked_header(volume, device.node, volume.dev)
    except luks_header.Distrusted as error:
        raise DeviceError(
            f"{volume.dev} cannot be adopted: {error.reason}",
            "nothing was changed; correct the volume's file, or change the volume by cryptsetup: reencrypt for"
            " cipher and digest, luksConvertKey for key slots",
        ) from None


def _label(volume: Volume, device: block.Device) -> str:
    """Return the label of the header: cryptsetup removes it when it writes the mark. Raises DeviceError."""
    label = luks_header.label(device.node)
    if all(" " <= char <= "~" for char in label):
        return label
    raise DeviceError(
        f"the label of {volume.dev} holds characters that cannot be kept",
        f"give it another, of letters and digits: cryptsetup config {volume.dev} --label LABEL",
    )


def _bind(volume: Volume, bound: Identity) -> CryptpilotError | None:
    try:
        identity.write(volume, bound)
    except CryptpilotError as error:
        # a volume that has a binding is bound to this header: that was checked
        return None if volume.identity else error
    return None


def _look_inside(volume: Volume, device: block.Device, passphrase: Passphrase, header: luks_header.Header) -> str:
    """Say what a volume that is not in use holds: open it read-only, under its working name."""
    close_leftover(volume)
    if state.is_open(volume) or _in_use(device):
        return ""
    with log.timed("open", volume.volume, device=volume.dev), telling_a_wrong_secret(volume):
        opened = mapping.opened(volume, device, passphrase, header, readonly=True)
    with opened as path:
        try:
            return state.describe(block.signature(path))
        except DeviceError as error:
            # with integrity, a block that was never written cannot be read
            return f"what cannot be told: {error.what.replace(path, volume.mapper_path)}"


def _in_use(device: block.Device) -> bool:
    try:
        block.require_unused(device.node)
    except DeviceError:
        return True
    return False

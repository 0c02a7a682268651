"""Key slots of an initialized volume: finding the one that takes a passphrase, and adding one with a token."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError, ProgramError, WrongSecret
from cryptpilot_boot.system import cryptsetup
from cryptpilot_boot.volume import opening, tokens

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system import block
    from cryptpilot_boot.system.luks_header import Facts


@dataclasses.dataclass(frozen=True)
class Older:
    """What happened to the key slots that, by their tokens, take older keys of a kind.

    removed: how many were removed, since their tokens are proven. unproven: numbers of those that were kept.
    """

    removed: int = 0
    unproven: tuple[int, ...] = ()

    def remark(self, kind: str, todo: str) -> str:
        """Return what to add about the slots that were kept, "" for none. kind: of the keys; todo: what to do.

        A token is data of the disk, which the host can write. So no advice removes a slot by the number in a token.
        """
        if not self.unproven:
            return ""
        slots = ", ".join(map(str, self.unproven))
        said = f"the header says that it takes an older {kind}, and nothing proves that"
        return f"; key slot {slots} was left: {said}; {todo}"


UNKNOWN = "docs/recovery.md, Unknown key slots"
"""The page that says how to find out which key a slot takes."""


def facts(volume: Volume, device: block.Device) -> Facts:
    """Return what the header of a complete persistent volume says; see `opening.initialized_header`."""
    header, found = opening.initialized_header(volume, device)
    header.close()
    return found


def taking(volume: Volume, device: block.Device, passphrase: Passphrase) -> int | None:
    """Return the number of the first key slot that takes a passphrase, None if no slot does."""
    try:
        return opening.find_slot(volume, device, passphrase)
    except WrongSecret:
        return None


def add(
    volume: Volume,
    device: block.Device,
    way_in: Passphrase,
    key: Passphrase,
    before: Facts,
    *,
    token: tokens.Token,
    kind: str,
    witness: Passphrase,
) -> int:
    """Add a key slot for a key, try it, and write a token for it. Returns its number.

    way_in: a passphrase that opens the volume. before: what its header said at the first check. token: makes the token.
    kind, witness: what the token proves, and by which passphrase; see `proof`.

    The work is completed even when interrupted. If the token cannot be written, the slot is removed again.
    """
    cryptsetup.add_key(device.node, way_in, key)
    # The header has changed: it is checked again, and has to be the same volume's.
    header, found = opening.initialized_header(volume, device)
    with header:
        if found.volume_keys != before.volume_keys:
            raise DeviceError(f"{volume.dev} got another header meanwhile", f"see it: cryptsetup luksDump {volume.dev}")
        slot = cryptsetup.verify(device.node, key, header, finish=True)
    try:
        tokens.write(device, slot, token, kind=kind, witness=witness, facts=found)
    except ProgramError:  # for instance, the header has no room for the token
        cryptsetup.kill_slot(device.node, slot, way_in)
        raise
    return slot

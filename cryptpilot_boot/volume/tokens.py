"""Tokens of a header that say what a key slot takes, each with its proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.providers.provider import Made
from cryptpilot_boot.system import cryptsetup, luks_header
from cryptpilot_boot.volume import proof
from cryptpilot_boot.volume.failure import telling

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system import block
    from cryptpilot_boot.system.luks_header import Facts

Token = Callable[[int, str], "dict[str, object]"]
"""Returns the JSON of a token: takes the number of its key slot, and the proof, in hexadecimal."""


def write(device: block.Device, slot: int, token: Token, *, kind: str, witness: Passphrase, facts: Facts) -> None:
    """Add to the header on a device the token of a key slot.

    kind, witness: what the slot is proven to be, and by which passphrase; see `proof`. facts: what the header says.
    Raises ProgramError, for instance if the header has no room for the token.
    """
    cryptsetup.add_token(device.node, token(slot, proof.mac(kind, witness, facts, slot)))


def keep(volume: Volume, device: block.Device, passphrase: Passphrase, witness: Passphrase) -> None:
    """Write the token that a passphrase of a key slot needs in the header of the device, if it needs one.

    witness: the passphrase that proves the token; see `proof`.
    """
    if not isinstance(passphrase, Made):
        return
    header, facts = luks_header.copy_from(device.node, volume.dev)
    with header, telling(volume, "cannot be given the token of its key"):
        slot = cryptsetup.verify(device.node, passphrase, header, finish=True)
        write(device, slot, passphrase.token, kind=proof.TPM2, witness=witness, facts=facts)

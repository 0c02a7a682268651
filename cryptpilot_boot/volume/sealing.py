"""Keys sealed to a TPM, in an initialized volume: adding one, replacing one, following a rotation.

A new key gets its key slot and token, and is tried, before an older one is removed. A power cut leaves the older key,
and what remains of it is removed the next time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.providers.provider import Made
from cryptpilot_boot.system import block, cryptsetup, lock, tpm2_token
from cryptpilot_boot.volume import opening, proof, slots, tokens
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.recovery import require_persistent
from cryptpilot_boot.volume.secret import with_secret
from cryptpilot_boot.volume.slots import Older

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.luks_header import Facts


def seal(volume: Volume, way_in: Secret, make: Asked, *, first: bool) -> Older:
    """Add a new key that is sealed to the TPM to a persistent volume, open or closed, and remove older ones.

    way_in: gives any passphrase that opens the volume: of another source, the recovery key, or the older sealed key.
    make: makes the new key. first: whether it belongs to the first source of the volume. Its token is proven by the new
    key then, otherwise by the way in, which is usually the key of the first source.

    A key slot that is not proven to take an older sealed key is kept, and its token is removed.
    """
    require_persistent(volume)
    with lock.held(volume.volume):
        device = block.look_up(volume.dev)
        before = slots.facts(volume, device)

        def work(passphrase: Passphrase) -> Older:
            opening.find_slot(volume, device, passphrase)  # raises unless a slot takes it: no key is made then
            new = _made(make)
            with new:
                return _replace(volume, device, passphrase, new, before, first=first)

        return with_secret(way_in, work)[0]


def _made(make: Asked) -> Made:
    """Return a new key."""
    new = make()
    if isinstance(new, Made):
        return new
    new.wipe()
    raise CryptpilotError("there is nothing to seal: the secret exists already", "please report this")


def _replace(
    volume: Volume, device: block.Device, way_in: Passphrase, new: Made, before: Facts, *, first: bool
) -> Older:
    hint = f"see its key slots: cryptsetup luksDump {volume.dev}"
    with (
        log.timed("add-key", volume.volume, device=volume.dev),
        telling(volume, "cannot be given a key that is sealed to the TPM", hint),
    ):
        witness = new if first else way_in
        slots.add(volume, device, way_in, new, before, token=new.token, kind=proof.TPM2, witness=witness)
    with telling(volume, "still has its older sealed key, beside the new one", hint):
        together = new.token(0, "")["type"] == tpm2_token.TOGETHER
        older = [one for one in before.tpm2 if one.together == together]
        claimed = {old for one in older for old in one.slots}
        void = claimed & proof.proven(proof.TPM2, older, way_in, before)
        with log.timed("remove-key", volume.volume, device=volume.dev):
            for old in sorted(void):
                cryptsetup.kill_slot(device.node, old, new)
            # proven or not: if the TPM gave two keys, one of them would open nothing after the next rotation
            for one in older:
                cryptsetup.remove_token(device.node, one.number)
    return Older(len(void), tuple(sorted(claimed - void)))


def follow(
    volume: Volume, device: block.Device, previous: Passphrase, old: int | None, current: Passphrase, slot: int
) -> None:
    """During a rotation, prove with the current value the tokens that the previous value proves.

    old, slot: the key slots of the two values, None for none. A token of the old slot, of a key that is combined with
    another value, becomes one of the new slot. A power cut in between leaves a token twice.
    """
    facts = slots.facts(volume, device)
    for token in facts.tpm2:
        proven = proof.proven(proof.TPM2, [token], previous, facts)
        for one in sorted({slot if one == old else one for one in proven}):
            tokens.write(device, one, _like(token), kind=proof.TPM2, witness=current, facts=facts)
        if proven:
            cryptsetup.remove_token(device.node, token.number)


def _like(token: tpm2_token.Token) -> tokens.Token:
    """Return what writes the same token for another key slot, with another proof."""
    return lambda slot, mac: tpm2_token.written(dataclasses.replace(token, slots=frozenset({slot}), mac=mac))

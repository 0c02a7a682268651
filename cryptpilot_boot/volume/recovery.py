"""Recovery keys of a volume: enrolling one, and opening a volume with it.

A token in the header says which key slots take recovery keys, with a proof made with the volume's secret: see `proof`.
An older recovery key is removed only if its token is proven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, WrongSecret
from cryptpilot_boot.keys import recovery
from cryptpilot_boot.keys.secret import Known
from cryptpilot_boot.system import block, cryptsetup, lock, recovery_tokens
from cryptpilot_boot.volume import opening, proof, slots, tokens
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.secret import Opened, with_secret
from cryptpilot_boot.volume.slots import Older

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.luks_header import Facts


def enroll(
    volume: Volume,
    secret: Secret,
    show: Callable[[Passphrase], None],
    *,
    replace: bool,
) -> Older:
    """Enroll a recovery key in a persistent volume, open or closed, and show it. Returns what became of older ones.

    secret: gives a key that opens it. show: is given the new key once it was tried, and has its token. Older keys are
    removed only after that, and if `replace` says so. A power cut leaves the older keys, and at most one key that was
    not shown.
    """
    require_persistent(volume)
    with lock.held(volume.volume):
        return enroll_held(volume, secret, show, replace=replace)


def enroll_held(
    volume: Volume,
    secret: Secret,
    show: Callable[[Passphrase], None],
    *,
    replace: bool,
) -> Older:
    """Do what `enroll` does, for a caller that holds the lock of the volume."""
    device = block.look_up(volume.dev)
    before = slots.facts(volume, device)
    if before.recovery_slots and not replace:
        raise CryptpilotError(
            "has a recovery key already",
            f"if it is lost: cryptpilot recovery-key {volume.volume} --replace makes another and revokes this one",
        )

    def work(passphrase: Passphrase) -> Older:
        own = opening.find_slot(volume, device, passphrase)  # raises unless a slot takes it: nothing is changed then
        with recovery.generate() as key:
            return _enroll(volume, device, passphrase, own, key, before, show)

    return with_secret(secret, work)[0]


def _enroll(
    volume: Volume,
    device: block.Device,
    passphrase: Passphrase,
    own: int,
    key: Passphrase,
    before: Facts,
    show: Callable[[Passphrase], None],
) -> Older:
    """Do the work of `enroll`. own: the number of the key slot that takes the passphrase."""
    hint = f"see its key slots: cryptsetup luksDump {volume.dev}"
    with (
        log.timed("add-key", volume.volume, device=volume.dev),
        telling(volume, "cannot be given a recovery key", hint),
    ):
        slot = slots.add(
            volume,
            device,
            passphrase,
            key,
            before,
            token=recovery_tokens.written,
            kind=proof.RECOVERY,
            witness=passphrase,
        )
    try:
        show(key)
    except OSError as error:
        _remove(device, passphrase, {slot}, slots.facts(volume, device))
        raise CryptpilotError(
            f"the recovery key could not be shown: {error.strerror}",
            "it was removed again; nothing has changed",
        ) from None
    with telling(volume, "still has its older recovery keys; the new one works", hint):
        facts = slots.facts(volume, device)
        # the slot of the passphrase itself is kept, even if a token names it
        claimed = facts.recovery_slots - {own, slot}
        older = claimed & _proven(passphrase, facts)
        with log.timed("remove-key", volume.volume, device=volume.dev):
            _remove(device, passphrase, older, facts)
    return Older(len(older), tuple(sorted(claimed - older)))


def renew_proofs(volume: Volume, device: block.Device, previous: Passphrase, current: Passphrase) -> None:
    """After a rotation, prove with the current value the tokens that the previous value proves.

    A power cut in between leaves a token twice, or one that is not proven.
    """
    facts = slots.facts(volume, device)
    for token in facts.recovery:
        for slot in token.slots & _proven(previous, facts):
            tokens.write(device, slot, recovery_tokens.written, kind=proof.RECOVERY, witness=current, facts=facts)
            cryptsetup.remove_token(device.node, token.number)


def _proven(passphrase: Passphrase, facts: Facts) -> set[int]:
    """Return the key slots that are proven to take recovery keys."""
    return proof.proven(proof.RECOVERY, facts.recovery, passphrase, facts)


def open_by_key(volume: Volume, key: Passphrase, *, check_fs: bool) -> Opened:
    """Open a persistent volume with its recovery key. No key provider is asked."""
    require_persistent(volume)
    try:
        return opening.open_volume(volume, Known(key), check_fs=check_fs)
    except WrongSecret:
        raise wrong_key(volume) from None


def wrong_key(volume: Volume) -> CryptpilotError:
    """Say that a recovery key does not open a volume."""
    return CryptpilotError(
        f"this recovery key does not open {volume.dev}: no key slot takes it",
        "it has no typing error, but is another volume's, or was replaced since",
    )


def require_persistent(volume: Volume) -> None:
    """Raise CryptpilotError for a temporary volume: each open formats it, and nothing can be recovered."""
    if volume.temporary:
        raise CryptpilotError(
            "is temporary: each open recreates it, with a random key",
            "what it held cannot be recovered; open it as usual: cryptpilot open " + volume.volume,
        )


def _remove(device: block.Device, passphrase: Passphrase, slots: set[int], facts: Facts) -> None:
    """Remove recovery keys, and the tokens that name only those. passphrase: opens another slot."""
    for slot in sorted(slots):
        cryptsetup.kill_slot(device.node, slot, passphrase)
    for token in sorted(facts.recovery, key=lambda one: one.number):
        if token.slots <= slots:
            cryptsetup.remove_token(device.node, token.number)

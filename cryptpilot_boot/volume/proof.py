"""Proofs that a token of a header was written by someone who can open the volume.

A token says what a key slot takes, and anyone who can write to the disk can write one. So a token carries a MAC, made
with a passphrase that opens the volume. A key slot is removed because of a token only if that MAC is right.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.luks_header import Facts

RECOVERY = "cryptpilot recovery key"
TPM2 = "cryptpilot key of a TPM"


class Claim(Protocol):
    """A token that says what some key slots take."""

    @property
    def slots(self) -> frozenset[int]:
        """Numbers of existing key slots."""

    @property
    def mac(self) -> str:
        """The proof, in hexadecimal; "" for none."""


def mac(kind: str, passphrase: Passphrase, facts: Facts, slot: int) -> str:
    """Return the proof that a key slot is of a kind, "" if the secret is weak: it could be guessed from the proof."""
    if not passphrase.strong:
        return ""
    what = f"{kind}: {facts.uuid} {slot} {facts.salts[slot]}"
    with passphrase.reveal() as key:
        return hmac.new(bytes(key), what.encode(), hashlib.sha256).hexdigest()


def proven(kind: str, tokens: Iterable[Claim], passphrase: Passphrase, facts: Facts) -> set[int]:
    """Return the key slots that a token proves to be of a kind."""
    return {
        slot
        for token in tokens
        for slot in token.slots
        if token.mac and hmac.compare_digest(token.mac, mac(kind, passphrase, facts, slot))
    }

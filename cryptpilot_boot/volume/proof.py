"""What proves that a token in a volume's header was written by somebody who can open the volume.

Whoever can write to the disk can write a token, which says which key slots are of a kind. So it carries a MAC by a
passphrase that opens the volume: a key slot is removed for what a token says only if that is proven.
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
    """A token that says which key slots are of a kind."""

    @property
    def slots(self) -> frozenset[int]:
        """Numbers of key slots that there are."""

    @property
    def mac(self) -> str:
        """What proves it, in hexadecimal; "" for nothing."""


def mac(kind: str, passphrase: Passphrase, facts: Facts, slot: int) -> str:
    """Return what proves that a key slot is of a kind, "" for a secret that could be guessed by it."""
    if not passphrase.strong:
        return ""
    what = f"{kind}: {facts.uuid} {slot} {facts.salts[slot]}"
    with passphrase.reveal() as key:
        return hmac.new(bytes(key), what.encode(), hashlib.sha256).hexdigest()


def proven(kind: str, tokens: Iterable[Claim], passphrase: Passphrase, facts: Facts) -> set[int]:
    """Return the key slots of which a token proves that they are of a kind."""
    return {
        slot
        for token in tokens
        for slot in token.slots
        if token.mac and hmac.compare_digest(token.mac, mac(kind, passphrase, facts, slot))
    }

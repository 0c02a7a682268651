"""The token in a LUKS2 header that holds a key sealed to a TPM: an allow list for what is read, and what is written.

It has the form of systemd-cryptenroll's (systemd 248 to 253, and read by every later one), so that systemd-cryptsetup
and cryptsetup's own plugin open the volume by it as well. If the key alone opens nothing, its type is another, which
these programs ignore. Source: systemd's src/shared/tpm2-util.c, `tpm2_make_luks2_json`.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.system import luks_objects as objects
from cryptpilot_boot.system import tpm2_wire as wire
from cryptpilot_boot.system.luks_objects import Unlisted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

ALONE = "systemd-tpm2"
TOGETHER = "cryptpilot-tpm2"
"""Types of tokens: the key opens the key slot alone, or together with the key of another source."""
_MAC, _VALUES = "cryptpilot_mac", "cryptpilot_pcrs"
_MEMBERS = frozenset(
    ("type", "keyslots", "tpm2-blob", "tpm2-pcrs", "tpm2-pcr-bank", "tpm2-primary-alg", "tpm2-policy-hash", "tpm2-pin")
)
_LONGEST = 1024  # bytes of each half of a sealed key; a TPM makes them of about 160 and 78
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Token:
    """A key that is sealed to a TPM: the disk's word, which the TPM alone can prove.

    number: of the token, -1 for one that is not in a header yet. slots: key slots that it is for. together: whether it
    opens them with another source's value alone. policy: the digest that releases it. values: what the registers held
    when it was sealed, by their numbers, of those of which that is known. mac: as of recovery_tokens.Recovery.
    """

    slots: frozenset[int]
    together: bool
    sealed: wire.Sealed
    pcrs: tuple[int, ...]
    policy: bytes
    values: Mapping[int, bytes]
    mac: str = ""
    number: int = -1

    def changed(self, now: wire.Registers) -> list[int]:
        """Return which registers hold something else now; none where that is not known. now: at least its own."""
        return [pcr for pcr in self.pcrs if pcr in self.values and self.values[pcr] != now.values[pcr]]


def written(token: Token) -> dict[str, object]:
    """Return the JSON of a token."""
    halves = (token.sealed.private, token.sealed.public)
    return {
        "type": TOGETHER if token.together else ALONE,
        "keyslots": [str(slot) for slot in sorted(token.slots)],
        "tpm2-blob": base64.b64encode(b"".join(len(half).to_bytes(2, "big") + half for half in halves)).decode(),
        "tpm2-pcrs": list(token.pcrs),
        "tpm2-pcr-bank": wire.BANK,
        "tpm2-primary-alg": "ecc",
        "tpm2-policy-hash": token.policy.hex(),
        "tpm2-pin": False,
        _VALUES: {str(pcr): value.hex() for pcr, value in token.values.items()},
        **({_MAC: token.mac} if token.mac else {}),
    }


def found(tokens: object, slots: Collection[int]) -> Iterator[Token | str]:
    """Yield the tokens for a TPM in a header's JSON; of one that is not as it must be, the reason.

    slots: numbers of the key slots that there are.
    """
    for number, one in tokens.items() if isinstance(tokens, dict) else ():
        if not isinstance(one, dict) or one.get("type") not in (ALONE, TOGETHER):
            continue
        try:
            yield _checked(one, objects.number(number), slots)
        except Unlisted as error:
            yield str(error)
        except (AttributeError, KeyError, TypeError, ValueError):
            yield "it does not have the structure of a token"


def _checked(one: Mapping[str, Any], number: int, slots: Collection[int]) -> Token:
    others = {name for name in one if name not in _MEMBERS and name not in (_MAC, _VALUES)}
    objects.require(not others, "it is of a kind that cryptpilot does not make: sealed with a PIN, or by newer means")
    objects.require(one.get("tpm2-pin", False) is False, "it takes a PIN")
    objects.require(one["tpm2-pcr-bank"] == wire.BANK, f"it is not sealed to the {wire.BANK} bank")
    objects.require(one["tpm2-primary-alg"] == "ecc", "it is not sealed under an ECC key")
    pcrs = one["tpm2-pcrs"]
    listed = isinstance(pcrs, list) and all(type(pcr) is int and pcr in wire.PCRS for pcr in pcrs)
    objects.require(listed and 0 < len(pcrs) == len({*pcrs}), "it does not list PCRs")
    policy = _digest(one["tpm2-policy-hash"])
    sealed = _sealed(one["tpm2-blob"])
    objects.require(wire.is_ours(sealed, policy), "what it holds is not a key that its PCRs alone release")
    values = _values(one.get(_VALUES, {}), pcrs, policy)
    mac = one.get(_MAC, "")
    objects.require(mac == "" or bool(_SHA256.fullmatch(mac)), "its MAC is not a SHA-256 digest")
    named = {int(name) for name in objects.names(one["keyslots"])}
    return Token(
        slots=frozenset(named & set(slots)),
        together=one["type"] == TOGETHER,
        sealed=sealed,
        pcrs=tuple(sorted(pcrs)),
        policy=policy,
        values=values,
        mac=mac,
        number=number,
    )


def _sealed(text: Any) -> wire.Sealed:
    blob = memoryview(base64.b64decode(text, validate=True))
    objects.require(len(blob) <= 2 * _LONGEST, "what it holds is too long for a sealed key")
    try:
        private, rest = wire.sized(blob)
        public, rest = wire.sized(rest)
    except wire.Garbled:
        raise Unlisted("what it holds is not a sealed key") from None
    objects.require(len(rest) == 0, "what it holds is not a sealed key")
    return wire.Sealed(bytes(private), bytes(public))


def _values(found: Any, pcrs: Collection[int], policy: bytes) -> dict[int, bytes]:
    """Return the registers' values if they match the policy; else nothing, because they would mislead."""
    if not isinstance(found, dict) or {*found} != {str(pcr) for pcr in pcrs}:
        return {}
    values = {int(pcr): _digest(value) for pcr, value in found.items()}
    return values if wire.policy(values) == policy else {}


def _digest(text: Any) -> bytes:
    objects.require(isinstance(text, str) and bool(_SHA256.fullmatch(text)), "a digest in it is not one of SHA-256")
    return bytes.fromhex(text)

"""The tokens in a LUKS2 header that say which key slots take recovery keys: what is read of them, and what is written.

They have the type of systemd-cryptenroll's, so that it knows such slots as well.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.system import luks_objects as objects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_TYPE = "systemd-recovery"
_MAC = "cryptpilot_mac"


@dataclasses.dataclass(frozen=True)
class Recovery:
    """A token that says that key slots take recovery keys: only the disk says so, unless `mac` proves it.

    slots: the numbers of those that there are. mac: in hexadecimal, "" for none; see volume.proof.
    """

    number: int
    slots: frozenset[int]
    mac: str = ""


def written(slot: int, mac: str) -> dict[str, object]:
    """Return the token that says that a key slot takes a recovery key. mac: what proves it, "" for nothing."""
    return {"type": _TYPE, "keyslots": [str(slot)], **({_MAC: mac} if mac else {})}


def found(tokens: object, slots: Collection[int]) -> Iterator[Recovery]:
    """Yield the tokens of recovery keys that make sense. cryptsetup is given none: the others matter to no reader.

    slots: numbers of the key slots that there are.
    """
    for number, token in tokens.items() if isinstance(tokens, dict) else ():
        if not isinstance(token, dict) or token.get("type") != _TYPE:
            continue
        try:
            named = {int(name) for name in objects.names(token.get("keyslots"))}
            place = objects.number(number)
        except (TypeError, ValueError):
            continue
        mac = token.get(_MAC)
        proof = mac if isinstance(mac, str) and re.fullmatch("[0-9a-f]{64}", mac) else ""
        yield Recovery(place, frozenset(named & set(slots)), proof)

"""Measurement registers: what events make of them. Pure.

Source: TCG PC Client Platform Firmware Profile, 10.4; UEFI specification 2.10, 38.4.1 for TDX.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BANKS = ("sha256", "sha384")
"""Hashes for which registers are computed, by the names that hashlib, pesign and the kernel's sysfs have for them."""
RTMR_BANK = "sha384"
"""The hash that TDX's registers use."""
_RTMRS = {**dict.fromkeys((1, 7), 0), **dict.fromkeys(range(2, 7), 1), **dict.fromkeys(range(8, 16), 2)}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something that is measured. pcr: into which; what: for people; digests: in hexadecimal, one for each of `BANKS`.

    confidential: whether it is also measured on a machine with TDX's registers and no TPM; None if unknown.
    """

    pcr: int
    what: str
    digests: Mapping[str, str]
    confidential: bool | None = True


def of_bytes(pcr: int, what: str, data: bytes, *, confidential: bool | None = True) -> Measurement:
    """Return the event that measures bytes as they are."""
    digests = {bank: hashlib.new(bank, data).hexdigest() for bank in BANKS}
    return Measurement(pcr, what, digests, confidential)


def replay(events: Iterable[Measurement], bank: str) -> dict[int, str]:
    """Return the values of the PCRs that events extend, by number, as if each was zero before."""
    return _extended(((one.pcr, one.digests[bank]) for one in events), bank)


def rtmrs(events: Iterable[Measurement]) -> dict[int, str]:
    """Return the values of TDX's RTMRs that events extend, in the order of all of them.

    Raises CryptpilotError for an event of a PCR that has no RTMR, and for an event that TDX may not measure.
    """
    pairs = []
    for one in events:
        if one.pcr not in _RTMRS:
            raise CryptpilotError(f"PCR {one.pcr} has no RTMR")
        if one.confidential is None:
            raise CryptpilotError(f"it is not known whether {one.what} is measured by TDX")
        if one.confidential:
            pairs.append((_RTMRS[one.pcr], one.digests[RTMR_BANK]))
    return _extended(pairs, RTMR_BANK)


def zero(bank: str) -> str:
    """Return the value of a register that nothing has extended."""
    return bytes(hashlib.new(bank).digest_size).hex()


def _extended(pairs: Iterable[tuple[int, str]], bank: str) -> dict[int, str]:
    values: dict[int, str] = {}
    for register, digest in pairs:
        before = values.get(register, zero(bank))
        values[register] = hashlib.new(bank, bytes.fromhex(before + digest)).hexdigest()
    return values

"""A key sealed to this machine's TPM 2.0, which releases it while the machine has booted the same software.

The sealed key is in a token of the volume's own header. The initrd cannot hold it, since it is measured itself, and a
file would have to be available before the volume is. The code that talks to the TPM is imported when it is needed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import limit
from cryptpilot_boot.providers.fields import Key, TomlType
from cryptpilot_boot.providers.provider import Made, Needs, Provider, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.providers.provider import Ask
    from cryptpilot_boot.system.tpm2 import Tpm
    from cryptpilot_boot.system.tpm2_token import Token
    from cryptpilot_boot.system.tpm2_wire import Registers

MEANINGS = {
    0: "the firmware",
    1: "the firmware's settings, or the machine's hardware",
    2: "the firmware of a card",
    3: "the settings of a card's firmware",
    4: "the boot loader, or the unified kernel image",
    5: "the partition table, or the boot loader's own settings",
    6: "the machine's maker",
    7: "Secure Boot: whether it is on, and its keys",
    8: "GRUB's commands, or the kernel command line",
    9: "the kernel or the initrd, or another file that GRUB read",
    10: "what IMA measured",
    11: "the unified kernel image, or how far the boot has come",
    12: "what was added to a unified image's command line or initrd",
    13: "what was added to a unified image's file system",
    14: "the keys that shim trusts beside Secure Boot's",
    15: "the machine's identity, or its volumes",
}
"""What a changed register means. Source: UAPI group's Linux TPM PCR Registry."""
DEFAULT = (4, 7, 8, 9, 12)
"""What starts the agent, and nothing that changes while the system runs. docs/tpm2.md explains the choice."""
_MOST_TRIED = 8  # tokens of one header that are tried
_GRACE = 1.0  # seconds: the wait for the device has a deadline of its own, which ends first and says more
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclasses.dataclass(frozen=True)
class Tpm2(Source):
    """A key that the TPM releases while registers hold the same values.

    dev: the device whose header holds the sealed key. pcrs: registers of the SHA-256 bank that a new key is sealed to;
    a sealed key names its own. together: whether it is one of several values that are needed.
    """

    provider = "tpm2"

    dev: str
    pcrs: tuple[int, ...] = DEFAULT
    together: bool = False


def passphrase_of(key: Passphrase) -> Passphrase:
    """Return the passphrase of a sealed key: base64, as systemd has it. The key is wiped."""
    with key:
        text = bytearray()
        raw = key.reveal()
        for place in range(0, len(raw), 3):
            some = bytes(3 - len(raw[place : place + 3]))
            number = int.from_bytes(raw[place : place + 3], "big") << 8 * len(some)
            text += bytes(_ALPHABET[number >> shift & 63] for shift in (18, 12, 6, 0))
        if spare := -len(raw) % 3:
            text[-spare:] = b"=" * spare
    passphrase = Passphrase(text, strong=True)
    text[:] = bytes(len(text))
    return passphrase


def _prepare(source: Tpm2) -> Ask:
    from cryptpilot_boot.system import luks_header, tpm2

    def ask(timeout: float) -> Passphrase:
        # the kernel allows a single command 120 s and cannot be stopped: the thread is left behind then
        late = KeyFetchError(
            f"the TPM did not answer within {timeout:.0f} s",
            "see what its driver says (dmesg), and what uses it: fuser /dev/tpm*",
        )
        return limit.within(timeout + _GRACE, lambda: ask_tpm(timeout), late)

    def ask_tpm(timeout: float) -> Passphrase:
        header, facts = luks_header.copy_from(source.dev)
        header.close()
        tokens = _usable(source, facts.tpm2)[:_MOST_TRIED]
        if not tokens:
            raise _nothing_sealed(source, facts.tpm2_unusable)
        try:
            with tpm2.connected(timeout) as tpm:
                return passphrase_of(_unsealed(tpm, tokens))
        except tpm2.Tpm2Error as error:
            raise KeyFetchError(error.what, error.hint, retryable=error.passing) from None

    return ask


def _usable(source: Tpm2, tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens of a header that may hold the key of a source, those with a key slot first.

    The key of a token without a slot opens nothing, unless it is combined with another value: a rotation changes that
    value, and replaces the slot before the token.
    """
    own = [one for one in tokens if one.together == source.together and (one.slots or one.together)]
    return sorted(own, key=lambda one: not one.slots)


def _unsealed(tpm: Tpm, tokens: Sequence[Token]) -> Passphrase:
    """Return the first key that the TPM releases. Raises KeyFetchError, or Tpm2Error, if it releases none."""
    from cryptpilot_boot.system import tpm2

    refusal: CryptpilotError | None = None
    now = tpm.registers(sorted({pcr for token in tokens for pcr in token.pcrs}))
    for token in tokens:
        registers = tpm2.Registers({pcr: now.values[pcr] for pcr in token.pcrs})
        if registers.policy != token.policy:
            refusal = refusal or _changed(token, registers)
            continue
        try:
            return tpm.unseal(token.sealed, registers)
        except tpm2.WrongTpm as error:
            refusal = KeyFetchError(error.what, f"{error.hint}: {_enroll(token)}")
    raise refusal or KeyFetchError("the header holds no key that is sealed to a TPM")


def _enroll(sealed: Tpm2 | Token) -> str:
    """Return the command that seals a new key."""
    return f"cryptpilot enroll VOLUME {'together' if sealed.together else Tpm2.provider}"


def _changed(token: Token, now: Registers) -> KeyFetchError:
    """Return an error that names the registers that changed since a key was sealed, and what to do."""
    from cryptpilot_boot.system.tpm2_wire import name

    hint = (
        "if you changed that, by a kernel update for example: open the volume by its recovery key or another"
        " source, and"
        f" seal a new key: {_enroll(token)}; otherwise the machine was started with something else"
    )
    pcrs = token.changed(now)
    if not pcrs:
        return KeyFetchError(
            f"the TPM does not give the key: one or more of {name(token.pcrs)} changed since it was sealed", hint
        )
    what = "; ".join(f"PCR {pcr}: {MEANINGS.get(pcr, 'no fixed use')}" for pcr in pcrs)
    return KeyFetchError(f"the TPM does not give the key: {name(pcrs)} changed since it was sealed ({what})", hint)


def _nothing_sealed(source: Tpm2, unusable: Sequence[str]) -> KeyFetchError:
    if unusable:
        return KeyFetchError(
            f"the TPM token in the header of {source.dev} cannot be used: {unusable[0]}",
            f"see it: cryptsetup luksDump --dump-json-metadata {source.dev}; then seal a new key: {_enroll(source)}",
        )
    return KeyFetchError(
        f"the header of {source.dev} holds no key that is sealed to a TPM"
        f"{' and opens it together with another value' if source.together else ''}",
        f"open the volume by its recovery key or another source, and seal one: {_enroll(source)}",
    )


def seal(source: Tpm2) -> Made:
    """Make a random key, and seal it to the present values of the registers. Raises KeyFetchError."""
    import os

    from cryptpilot_boot.system import tpm2, tpm2_token

    key = Passphrase(os.urandom(tpm2.KEY), strong=True)
    try:
        with tpm2.connected(0) as tpm:
            registers = tpm.registers(source.pcrs)
            sealed = tpm.seal(key, registers)
            # try to unseal it
            with tpm.unseal(sealed, registers) as again:
                if again.reveal() != key.reveal():
                    raise KeyFetchError("the TPM gives back another key than it sealed", "do not rely on this TPM")
    except tpm2.Tpm2Error as error:
        raise KeyFetchError(error.what, error.hint, retryable=error.passing) from None

    def token(slot: int, mac: str) -> dict[str, object]:
        return tpm2_token.written(
            tpm2_token.Token(
                slots=frozenset({slot}),
                together=source.together,
                sealed=sealed,
                pcrs=source.pcrs,
                policy=registers.policy,
                values=registers.values,
                mac=mac,
            )
        )

    return Made(passphrase_of(key), token)


def _pcrs(numbers: Sequence[int]) -> str:
    """Return what is wrong with a list of registers, "" for nothing."""
    if not numbers:
        return "must name at least one PCR: a key that is sealed to no PCR is given to any system that starts"
    if not all(0 <= number < len(MEANINGS) for number in numbers) or len(set(numbers)) < len(numbers):
        return f"must be different numbers from 0 to {len(MEANINGS) - 1}"
    return ""


_NUMBERS = TomlType(
    "a list of whole numbers",
    lambda value: isinstance(value, list) and all(type(item) is int for item in value),
    lambda value: tuple(sorted(value)),
)
PROVIDER = Provider(
    make=Tpm2,
    keys={"pcrs": Key(_NUMBERS, _pcrs)},
    prepare=_prepare,
    describe=lambda source: {"provider": f"this machine's TPM, PCRs {', '.join(map(str, source.pcrs))}"},
    needs=lambda _: Needs(modules=("tpm_tis", "tpm_crb")),
    seal=lambda source, _: seal(source),
    on_device=True,
)

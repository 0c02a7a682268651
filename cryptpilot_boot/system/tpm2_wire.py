"""What a TPM 2.0 is asked and answers, as bytes: nine commands, each with the one form that a sealed key needs.

Pure. Source: Trusted Platform Module Library, revision 1.38, parts 2 (structures) and 3 (commands).
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

BANK = "sha256"
PCRS = range(24)
LONGEST = 4096
"""Bytes of a command or an answer: what Linux takes (TPM_BUFSIZE)."""
MOST_DIGESTS = 8
"""That PCR_Read returns at once."""

_SHA256, _NULL, _AES, _CFB, _ECC, _KEYED_HASH = 0x000B, 0x0010, 0x0006, 0x0043, 0x0023, 0x0008
_NIST_P256 = 0x0003
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_OWNER, _NO_HANDLE, _PASSWORD = 0x40000001, 0x40000007, 0x40000009
_POLICY_SESSION = 0x01
_FIXED_TPM, _FIXED_PARENT, _TPM_MADE_IT, _WITH_AUTH = 1 << 1, 1 << 4, 1 << 5, 1 << 6
_NO_LOCKOUT, _RESTRICTED, _DECRYPT = 1 << 10, 1 << 16, 1 << 17

_CREATE_PRIMARY, _CREATE, _LOAD, _UNSEAL = 0x131, 0x153, 0x157, 0x15E
_FLUSH, _START_SESSION, _PCR_READ, _POLICY_PCR = 0x165, 0x176, 0x17E, 0x17F

# What a TPM's refusal comes down to, with the number of the parameter or handle taken out.
LOCKED_OUT, PCR_CHANGED, NOT_STARTED, DISABLED = 0x921, 0x128, 0x100, 0x120
WRONG_POLICY, WRONG_INTEGRITY, WRONG_AUTH, BAD_AUTH, HIERARCHY = 0x9D, 0x9F, 0x8E, 0xA2, 0x85
BUSY = frozenset((0x922, 0x908, 0x920, 0x90A))
"""It asks for the command again: TPM_RC_RETRY, YIELDED, NV_RATE, TESTING."""
_NUMBERED = 0x80  # a code of format one, where bits 6 and 8 to 11 say which parameter it is of
_CODE_ALONE = 0xBF


class Garbled(Exception):
    """An answer, or a sealed key, has not the form that the specification gives it."""


@dataclasses.dataclass(frozen=True)
class Sealed:
    """A key that only one TPM gives back, as long as its registers have the same values.

    private: encrypted by the TPM. public: its public part; `is_ours` says which are allowed.
    """

    private: bytes
    public: bytes


@dataclasses.dataclass(frozen=True)
class Registers:
    """What registers of the SHA-256 bank hold, by their numbers."""

    values: Mapping[int, bytes]

    @property
    def policy(self) -> bytes:
        """The digest of the policy that they hold this."""
        return policy(self.values)


# The same storage key as that of systemd-cryptenroll and of tpm2-tools' tpm2_createprimary -G ecc: a TPM makes it again
# from its own seed each time, so that nothing is kept in the TPM.
_PRIMARY = struct.pack(
    ">HHI9H",
    *(_ECC, _SHA256, _FIXED_TPM | _FIXED_PARENT | _TPM_MADE_IT | _WITH_AUTH | _RESTRICTED | _DECRYPT),
    *(0, _AES, 128, _CFB, _NULL, _NIST_P256, _NULL, 0, 0),
)
# systemd-cryptenroll makes keys without the second. Neither has WITH_AUTH: nothing but the policy releases them.
_ATTRIBUTES = (_FIXED_TPM | _FIXED_PARENT | _NO_LOCKOUT, _FIXED_TPM | _FIXED_PARENT)


def policy(values: Mapping[int, bytes]) -> bytes:
    """Return the digest of the policy that registers of the SHA-256 bank hold these values.

    Part 3, TPM2_PolicyPCR: what a session holds that has been through it, and nothing else.
    """
    held = hashlib.sha256(b"".join(values[pcr] for pcr in sorted(values))).digest()
    said = struct.pack(">I", _POLICY_PCR) + selection(values) + held
    return hashlib.sha256(bytes(32) + said).digest()


def name(pcrs: Collection[int]) -> str:
    """Return what a person calls registers."""
    *others, last = map(str, sorted(pcrs))
    return f"PCRs {', '.join(others)} and {last}" if others else f"PCR {last}"


def selection(pcrs: Iterable[int]) -> bytes:
    """Return a TPML_PCR_SELECTION: these registers of the SHA-256 bank."""
    return struct.pack(">IHB", 1, _SHA256, 3) + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")


def is_ours(sealed: Sealed, digest: bytes) -> bool:
    """Tell whether a public area is that of a key which this policy, and nothing but it, releases."""
    unique = _field(sealed.public[-hashlib.sha256().digest_size :])
    return any(sealed.public == _sealed_public(attributes, digest) + unique for attributes in _ATTRIBUTES)


def read_registers(pcrs: Sequence[int]) -> bytes:
    """Ask for the values of at most MOST_DIGESTS registers."""
    return _command(_PCR_READ, b"", selection(pcrs))


def create_primary() -> bytes:
    """Ask for the storage key."""
    return _command(_CREATE_PRIMARY, _handle(_OWNER), _field(bytes(4)) + _field(_PRIMARY) + bytes(6), _password())


def create(parent: int, key: memoryview, digest: bytes) -> bytearray:
    """Ask for a key to be sealed; the caller wipes what this returns."""
    public = _sealed_public(_ATTRIBUTES[0], digest) + _field(b"")
    parameters = bytearray(struct.pack(">HHH", 4 + len(key), 0, len(key)))
    parameters += key
    parameters += _field(public) + bytes(6)
    command = bytearray(_command(_CREATE, _handle(parent), bytes(len(parameters)), _password()))
    command[len(command) - len(parameters) :] = parameters
    parameters[:] = bytes(len(parameters))
    return command


def load(parent: int, sealed: Sealed) -> bytes:
    """Ask the TPM to take a sealed key in."""
    return _command(_LOAD, _handle(parent), _field(sealed.private) + _field(sealed.public), _password())


def start_session(nonce: bytes) -> bytes:
    """Ask for a session that a policy is shown in. nonce: 32 bytes by chance."""
    kind = struct.pack(">BHH", _POLICY_SESSION, _NULL, _SHA256)
    return _command(_START_SESSION, _handle(_NO_HANDLE) * 2, _field(nonce) + _field(b"") + kind)


def policy_pcr(session: int, pcrs: Iterable[int]) -> bytes:
    """Ask for the registers' values to be taken into a session."""
    return _command(_POLICY_PCR, _handle(session), _field(b"") + selection(pcrs))


def unseal(item: int, session: int) -> bytes:
    """Ask for the key itself."""
    return _command(_UNSEAL, _handle(item), b"", _authorization(session))


def flush(handle: int) -> bytes:
    """Ask the TPM to forget a key or a session."""
    return _command(_FLUSH, b"", _handle(handle))


def code(answer: memoryview) -> int:
    """Return what an answer's code comes down to, 0 for success. Raises Garbled."""
    if len(answer) < _HEADER.size:
        raise Garbled
    tag, size, said = _HEADER.unpack_from(answer)
    if tag not in (_NO_SESSIONS, _SESSIONS, 0x00C4) or size != len(answer):
        raise Garbled
    return int(said & _CODE_ALONE if said & _NUMBERED else said)


def handle(answer: memoryview) -> tuple[int, memoryview]:
    """Return the handle that an answer begins with, and the rest. Raises Garbled."""
    rest = answer[_HEADER.size :]
    return int.from_bytes(_take(rest, 4), "big"), rest[4:]


def parameters(rest: memoryview) -> memoryview:
    """Return the parameters of an answer in a session. rest: what follows its handle, or its header. Raises Garbled."""
    size = int.from_bytes(_take(rest, 4), "big")
    return _take(rest[4:], size)


def body(answer: memoryview) -> memoryview:
    """Return what follows the header of an answer that begins with no handle."""
    return answer[_HEADER.size :]


def sized(rest: memoryview) -> tuple[memoryview, memoryview]:
    """Return the next field that begins with its size (TPM2B), and the rest. Raises Garbled."""
    size = int.from_bytes(_take(rest, 2), "big")
    return _take(rest[2:], size), rest[2 + size :]


def registers(answer: memoryview, pcrs: Sequence[int]) -> dict[int, bytes]:
    """Return the values in an answer to `read_registers`; those that a TPM has not are left out. Raises Garbled."""
    rest = body(answer)[4:]
    head, chosen = _take(rest, 7), _take(rest[7:], 3)
    if bytes(head) != struct.pack(">IHB", 1, _SHA256, 3):
        raise Garbled
    mask = int.from_bytes(chosen, "little")
    given = [pcr for pcr in pcrs if mask >> pcr & 1]
    rest = rest[10:]
    if int.from_bytes(_take(rest, 4), "big") != len(given) or mask & ~sum(1 << pcr for pcr in pcrs):
        raise Garbled
    rest, found = rest[4:], {}
    for pcr in given:
        digest, rest = sized(rest)
        if len(digest) != hashlib.sha256().digest_size:
            raise Garbled
        found[pcr] = bytes(digest)
    return found


_HEADER = struct.Struct(">HII")


def _command(number: int, handles: bytes, rest: bytes, authorization: bytes = b"") -> bytes:
    tag = _SESSIONS if authorization else _NO_SESSIONS
    content = handles + authorization + rest
    return _HEADER.pack(tag, _HEADER.size + len(content), number) + content


def _password() -> bytes:
    return _authorization(_PASSWORD)


def _authorization(session: int) -> bytes:
    """Return the authorization by a session without a password: no nonce, no attributes, no HMAC."""
    return struct.pack(">IIHBH", 9, session, 0, 0, 0)


def _handle(value: int) -> bytes:
    return struct.pack(">I", value)


def _field(content: bytes) -> bytes:
    """Return a field that begins with its size (TPM2B)."""
    return struct.pack(">H", len(content)) + content


def _sealed_public(attributes: int, digest: bytes) -> bytes:
    """Return the public area of a sealed key up to what the TPM adds."""
    return struct.pack(">HHI", _KEYED_HASH, _SHA256, attributes) + _field(digest) + struct.pack(">H", _NULL)


def _take(rest: memoryview, size: int) -> memoryview:
    if len(rest) < size:
        raise Garbled
    return rest[:size]

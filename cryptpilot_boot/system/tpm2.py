"""A TPM 2.0 of this machine: sealing a key to the values of its registers (PCRs), and having the key back.

Spoken to by the kernel's own device, without a program or a library: an image needs only the driver, no context is kept
in a file, and the key goes from the kernel into one buffer. It seals what systemd-cryptenroll seals, under the same
storage key, so that other programs can unseal it too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import tpm2_wire as wire
from cryptpilot_boot.system.tpm2_wire import Registers as Registers
from cryptpilot_boot.system.tpm2_wire import Sealed as Sealed
from cryptpilot_boot.system.wait import Deadline, device_changes, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEVICE = "/dev/tpmrm0"
"""The TPM behind the kernel's resource manager, which forgets on closing what was loaded. There since Linux 4.12."""
KEY = 32
"""Bytes of a key that is sealed."""
DRIVERS = ("tpm_tis", "tpm_crb")
"""Kernel modules of the two interfaces of a PC's TPM. A virtual machine's TPM has one of these too."""

_APPEARS = 20.0  # seconds until its driver has found it: udev loads the driver once the kernel announces the hardware
_ANSWERS = 120.0  # seconds: the kernel's own limit for one command
_AGAIN = 0.02  # seconds between two tries of a command that the TPM is too busy for
_BUSY = 10.0  # seconds it may be


class Tpm2Error(CryptpilotError):
    """A TPM did not do what was asked. passing: whether asking again later may help."""

    def __init__(self, what: str, hint: str = "", *, passing: bool = False) -> None:
        super().__init__(what, hint)
        self.passing = passing


class WrongState(Tpm2Error):
    """The registers hold other values than those that a key is sealed to."""


class WrongTpm(Tpm2Error):
    """A key was sealed by another TPM, or what is sealed was changed since."""


class _Refused(Exception):
    """The TPM answered a command with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:#x}")
        self.code = code


class Tpm:
    """One conversation with a TPM; no loaded object is left when a method returns."""

    def __init__(self, descriptor: int, *, answers: float = _ANSWERS, busy: float = _BUSY) -> None:
        """descriptor: takes commands and gives answers, each as a whole; it stays the caller's.

        answers: seconds to wait for one. busy: seconds in which a command is tried that the TPM is too busy for.
        """
        self._descriptor = descriptor
        self._answers, self._busy = answers, busy

    def registers(self, pcrs: Sequence[int]) -> Registers:
        """Read registers. Raises Tpm2Error, also when the TPM has no SHA-256 bank of them."""
        wanted, found = sorted(pcrs), {}
        with _telling("cannot be read"):
            for start in range(0, len(wanted), wire.MOST_DIGESTS):
                some = wanted[start : start + wire.MOST_DIGESTS]
                with self._ask(wire.read_registers(some)) as answer:
                    found.update(wire.registers(answer, some))
        missing = [pcr for pcr in wanted if pcr not in found]
        if missing:
            raise Tpm2Error(
                f"the TPM has no SHA-256 value of {wire.name(missing)}",
                "switch its SHA-256 bank on, in the firmware's setup or where the machine is configured",
            )
        return Registers(found)

    def seal(self, key: Passphrase, registers: Registers) -> Sealed:
        """Seal a key of KEY bytes to what registers hold. Raises Tpm2Error."""
        with _telling("cannot seal a key"), self._primary() as primary:
            command = wire.create(primary, key.reveal(), registers.policy)
            try:
                with self._ask(command) as answer:
                    private, rest = wire.sized(wire.parameters(wire.body(answer)))
                    public, _ = wire.sized(rest)
                    sealed = Sealed(bytes(private), bytes(public))
            finally:
                command[:] = bytes(len(command))
        if not wire.is_ours(sealed, registers.policy):
            raise Tpm2Error("the TPM did not seal the key as requested", "nothing was changed")
        return sealed

    def unseal(self, sealed: Sealed, registers: Registers) -> Passphrase:
        """Return a key that is sealed to what registers hold now; its owner wipes it.

        registers: their values. Raises Tpm2Error: WrongTpm, WrongState when they change meanwhile, and others.
        """
        with (
            _telling("cannot unseal the key"),
            self._primary() as primary,
            self._loaded(wire.load(primary, sealed)) as item,
            self._session() as session,
        ):
            with self._ask(wire.policy_pcr(session, registers.values)):
                pass
            with self._ask(wire.unseal(item, session)) as answer:
                key, _ = wire.sized(wire.parameters(wire.body(answer)))
                if len(key) != KEY:
                    raise wire.Garbled
                return Passphrase(key, strong=True)

    @contextlib.contextmanager
    def _primary(self) -> Iterator[int]:
        with self._loaded(wire.create_primary()) as primary:
            yield primary

    @contextlib.contextmanager
    def _session(self) -> Iterator[int]:
        # unsealing ends it, and only what goes wrong before leaves it
        with self._loaded(wire.start_session(os.urandom(32)), ends=True) as session:
            yield session

    @contextlib.contextmanager
    def _loaded(self, command: bytes, *, ends: bool = False) -> Iterator[int]:
        with self._ask(command) as answer:
            handle, _ = wire.handle(answer)
        try:
            yield handle
        except BaseException:
            self._forget(handle)
            raise
        if not ends:
            self._forget(handle)

    def _forget(self, handle: int) -> None:
        """Flush an object from the TPM; the kernel flushes the rest when the device is closed."""
        with contextlib.suppress(_Refused, wire.Garbled, OSError), self._ask(wire.flush(handle)):
            pass

    @contextlib.contextmanager
    def _ask(self, command: bytes | bytearray) -> Iterator[memoryview]:
        """Give a command, and the answer for as long as it is looked at: what a key may be in is overwritten."""
        limit = Deadline(self._busy)
        buffer = bytearray(wire.LONGEST)
        try:
            while True:
                answer = memoryview(buffer)[: self._converse(command, buffer)]
                code = wire.code(answer)
                if code not in wire.BUSY or limit.over:
                    break
                time.sleep(_AGAIN)
            if code:
                raise _Refused(code)
            yield answer
        finally:
            buffer[:] = bytes(len(buffer))

    def _converse(self, command: bytes | bytearray, buffer: bytearray) -> int:
        """Write a command and read its answer into `buffer`; return the answer's length."""
        if os.write(self._descriptor, command) != len(command):
            raise wire.Garbled
        if not select.select([self._descriptor], [], [], self._answers)[0]:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return os.readv(self._descriptor, [buffer])


@contextlib.contextmanager
def connected(timeout: float) -> Iterator[Tpm]:
    """Give a conversation with this machine's TPM, once it is there. timeout: seconds to wait for it at most.

    Raises Tpm2Error.
    """
    _await(min(timeout, _APPEARS))
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Tpm2Error(
            f"{DEVICE}, the TPM, cannot be opened: {error.strerror}",
            "run this as root" if error.errno in (errno.EACCES, errno.EPERM) else "see what uses it: fuser /dev/tpm*",
            passing=error.errno == errno.EBUSY,
        ) from None
    try:
        yield Tpm(descriptor)
    finally:
        os.close(descriptor)


def _await(seconds: float) -> None:
    def tell(left: float) -> None:
        log.emit("wait-tpm", "wait", facts={"waiting_for": f"{DEVICE}, {left:.0f} s left"})

    with device_changes() as changes:
        if wait_for(lambda: os.path.exists(DEVICE) or None, changes, Deadline(seconds), on_wait=tell):  # noqa: PTH110
            return
    raise Tpm2Error(
        f"this machine has no TPM 2.0: {DEVICE} did not appear within {seconds:.0f} s",
        "see whether it has one that is switched on, and what its driver says: dmesg;"
        f" the drivers are {' and '.join(DRIVERS)}",
    )


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Say of a TPM that refused why that may be, and what to do."""
    try:
        yield
    except _Refused as refused:
        raise _explained(what, refused.code) from None
    except wire.Garbled:
        raise Tpm2Error(
            f"the TPM {what}: its answer is not a valid answer of a TPM",
            "see whether the TPM works, with tpm2_selftest; the host makes a virtual machine's",
        ) from None
    except OSError as error:
        raise Tpm2Error(
            f"the TPM {what}: {DEVICE}: {error.strerror}", "see what its driver says: dmesg", passing=True
        ) from None


def _explained(what: str, code: int) -> Tpm2Error:
    if code in (wire.WRONG_POLICY, wire.PCR_CHANGED):
        return WrongState(f"the TPM {what}: its PCRs changed at that moment", "try again", passing=True)
    if code == wire.WRONG_INTEGRITY:
        return WrongTpm(
            "the key was sealed by another TPM, or by this one before it was cleared, or was changed on the disk",
            "open the volume by its recovery key or another source, and seal a new key",
        )
    for codes, said, hint, passing in _REFUSALS:
        if code in codes:
            return Tpm2Error(f"the TPM {what}: {said}", hint, passing=passing)
    return Tpm2Error(f"the TPM {what}: it refused with code {code:#x}", f"see what it means: tpm2_rc_decode {code:#x}")


# By the TPM's codes: what they come down to, what to do, whether waiting may help.
_REFUSALS: tuple[tuple[frozenset[int], str, str, bool], ...] = (
    (
        frozenset({wire.LOCKED_OUT}),
        "it is locked out, after too many wrong passwords for what it guards",
        "open the volume another way; wait until that is over, or lift it with tpm2_dictionarylockout",
        False,
    ),
    (
        frozenset({wire.WRONG_AUTH, wire.BAD_AUTH}),
        "its owner hierarchy has a password",
        "remove that password, with tpm2_changeauth",
        False,
    ),
    (
        frozenset({wire.HIERARCHY, wire.DISABLED}),
        "its owner hierarchy is switched off",
        "switch the TPM on in the firmware's setup",
        False,
    ),
    (frozenset({wire.NOT_STARTED}), "it was not started by the firmware", "see the firmware's setup", False),
    (wire.BUSY, f"it was busy for {_BUSY:.0f} s", "try again", True),
)

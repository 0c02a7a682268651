"""LUKS2 through the cryptsetup program.

Uses: cryptsetup. Every function raises ProgramError when it fails. Passphrases go in by pipe and are taken byte
for byte (`--key-file=-`: a newline is no end). Headers go in as files in memory (see system.luks_header). A mapping or
a mark is not left half made: what makes it, or takes it away, is finished whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import threading
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.errors import CryptpilotError, Interrupted, ProgramError
from cryptpilot_boot.system import composite, luks_data, luks_header, mappings
from cryptpilot_boot.system.run import raise_if_interrupted, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.luks_header import Header

# Source: cryptsetup(8) under "RETURN CODES".
WRONG_PASSPHRASE = 2

CIPHER = ["--cipher=aes-xts-plain64", "--key-size=512", "--hash=sha256"]
# Stretching is for what a person can remember. 1,000 iterations is the least PBKDF2 allows.
DERIVATION = {
    True: ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"],
    False: ["--pbkdf=argon2id"],
}
_INTEGRITY = ["--integrity=hmac-sha256"]
_LONGEST_FLUSH = 600.0  # seconds, until the data that an interrupted wipe left in memory are on the disk
_TO_MAP = 2.0  # seconds that making a mapping takes at most, once the key is derived
# Argon2id takes up to half of the memory there is: of several at once, one would be killed for want of it.
_ONE_BY_ONE = ["--serialize-memory-hard-pbkdf"]
_memory_hard = threading.Lock()  # luksFormat heeds no such option
# The journal writes everything twice, and is what makes data and tags agree after a power cut.
_NO_JOURNAL = ["--integrity-no-journal"]


def said(error: ProgramError, device: str) -> str:
    """Return what cryptsetup said, with the device's name in place of the file in memory that it was given for it."""
    return re.sub(r"/proc/self/fd/\d+", device, error.what)


def luks_format(
    device: str,
    passphrase: Passphrase,
    *,
    subsystem: str,
    sector_size: int,
    integrity: bool,
    wipe: bool,
    before_writing: Callable[[], object],
) -> Header:
    """Make a LUKS2 header for `device` and return it: it is not on the device yet.

    With `integrity` the room for the tags is laid out on the device, and the data there are lost. Sectors that were
    never written cannot be read then, unless `wipe` writes each of them. sector_size: in bytes. before_writing: called
    right before the device is written to, by this or by the caller: what it raises keeps the device as it is.
    """
    header = luks_header.Header()
    # It may be long until it is a weak passphrase's turn, and stretching it takes seconds.
    with contextlib.nullcontext() if passphrase.strong else _memory_hard:
        raise_if_interrupted()
        if integrity:
            before_writing()
        with composite.place(device, header, integrity=integrity) as place:
            run(
                [
                    "cryptsetup",
                    "luksFormat",
                    "--type=luks2",
                    "--batch-mode",
                    *place.options,
                    f"--offset={luks_header.SIZE // 512}",
                    *CIPHER,
                    f"--sector-size={sector_size}",
                    *(_INTEGRITY if integrity else []),
                    *(["--integrity-no-wipe"] if integrity and not wipe else []),
                    *DERIVATION[passphrase.strong],
                    f"--subsystem={subsystem}",
                    "--key-file=-",
                    place.device,
                ],
                stdin=passphrase.reveal(),
                pass_fds=place.descriptors,
                # a wipe takes hours, and cryptsetup makes a good end of it itself
                finish=integrity and not wipe,
                patience=_LONGEST_FLUSH,
            )
    raise_if_interrupted()
    if not integrity:
        before_writing()
    return header


def luks_open(
    device: str,
    name: str,
    passphrase: Passphrase,
    header: Header,
    *,
    journal: bool,
    readonly: bool = False,
    discard: bool = False,
) -> None:
    """Open the LUKS2 device as /dev/mapper/`name`. The passphrase is verified by opening.

    journal: keep the journal of a device with integrity. readonly: nothing is written to the device. discard: what is
    discarded on the mapping is discarded on the device. An interruption leaves the device closed, and does not wait for
    a key that takes long to derive.
    """
    raise_if_interrupted()
    with composite.place(device, header, integrity=luks_data.has_integrity(header), readonly=readonly) as place:
        try:
            run(
                [
                    "cryptsetup",
                    "open",
                    "--type=luks2",
                    *place.options,
                    *_ONE_BY_ONE,
                    *([] if journal else _NO_JOURNAL),
                    *(["--readonly"] if readonly else []),
                    *(["--allow-discards"] if discard else []),
                    "--key-file=-",
                    place.device,
                    name,
                ],
                stdin=passphrase.reveal(),
                pass_fds=place.descriptors,
                patience=_TO_MAP,
            )
            raise_if_interrupted()
        except Interrupted:
            _close_again(name)
            raise
        if place.whole:
            try:
                composite.move(name, below(name), place.whole, readonly=readonly)
            except CryptpilotError:
                _close_again(name)
                raise


def _close_again(name: str) -> None:
    for mapping in filter(None, map(mappings.find, (name, below(name)))):
        close(mapping.name)


def resize(name: str, passphrase: Passphrase, header: Header, sectors: int) -> None:
    """Give the open mapping /dev/mapper/`name` so many sectors of 512 bytes; how it was opened is kept.

    The passphrase is needed because only the kernel has the volume key of an open device, and does not give it away.
    The device's metadata do not change: a power cut leaves nothing half done.
    """
    # like luksFormat, it heeds no option to that end
    with contextlib.nullcontext() if passphrase.strong else _memory_hard:
        raise_if_interrupted()
        run(
            [
                "cryptsetup",
                "resize",
                f"--header={header.path}",
                f"--size={sectors}",
                "--key-file=-",
                name,
            ],
            stdin=passphrase.reveal(),
            pass_fds=[header.descriptor],
            finish=True,
        )


def verify(device: str, passphrase: Passphrase, header: Header, *, finish: bool = False) -> int:
    """Try the passphrase without opening anything; return the number of the key slot that takes it.

    finish: continue even after an interruption.
    """
    _, said = run(
        [
            "cryptsetup",
            "open",
            "--verbose",
            "--type=luks2",
            f"--header={header.path}",
            *_ONE_BY_ONE,
            "--test-passphrase",
            "--key-file=-",
            device,
        ],
        stdin=passphrase.reveal(),
        pass_fds=[header.descriptor],
        finish=finish,
    )
    slot = re.search(r"Key slot (\d+) unlocked", said)
    if not slot:
        raise ProgramError("cryptsetup: did not say which key slot takes the passphrase")
    return int(slot[1])


def add_key(device: str, passphrase: Passphrase, new: Passphrase) -> None:
    """Add a key slot for `new` to the header on the device. passphrase: of one that is there already.

    cryptsetup writes one copy of the metadata after the other: a power cut leaves the slot there, or not.
    """
    raise_if_interrupted()
    descriptor = os.memfd_create("new-key", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, len(new))
        # as long as it is mapped it is locked in memory, as all else is; see process.lock_memory
        with mmap.mmap(descriptor, len(new)) as mapped:
            mapped[:] = new.reveal()
            run(
                [
                    "cryptsetup",
                    "luksAddKey",
                    "--type=luks2",
                    "--batch-mode",
                    "--hash=sha256",
                    *DERIVATION[new.strong],
                    "--key-file=-",
                    device,
                    f"/proc/self/fd/{descriptor}",
                ],
                stdin=passphrase.reveal(),
                pass_fds=[descriptor],
                finish=True,
            )
    finally:
        os.close(descriptor)


def kill_slot(device: str, slot: int, passphrase: Passphrase) -> None:
    """Remove a key slot from the header on the device, key material and all.

    passphrase: of another slot; cryptsetup refuses one that opens only this slot, unless this is the last slot. Only
    the caller can know that beforehand.
    """
    raise_if_interrupted()
    run(
        ["cryptsetup", "luksKillSlot", "--batch-mode", "--key-file=-", device, str(slot)],
        stdin=passphrase.reveal(),
        finish=True,
    )


def add_token(device: str, token: dict[str, object]) -> None:
    """Add a token to the header on the device. token: its JSON.

    cryptsetup writes one copy of the metadata after the other: a power cut leaves the token there, or not.
    """
    text = json.dumps(token).encode()
    run(["cryptsetup", "token", "import", "--json-file=-", device], stdin=memoryview(text), finish=True)


def remove_token(device: str, number: int) -> None:
    """Remove a token from the header on the device."""
    run(["cryptsetup", "token", "remove", f"--token-id={number}", device], finish=True)


def below(name: str) -> str:
    """Name the mapping that cryptsetup makes below one of a device with integrity."""
    return f"{name}_dif"


def temporary(names: Iterable[str]) -> list[str]:
    """Return those of the names of mappings that a cryptsetup gave while it wiped a device; they stay if it is killed.

    What lies below another comes after it. Source: lib/setup.c of cryptsetup 2.3 to 2.8; it puts a UUID into the name.
    """
    return sorted(name for name in names if re.fullmatch(r"temporary-cryptsetup-[0-9a-f-]+(_dif)?", name))


def close(name: str) -> None:
    """Remove the mapping /dev/mapper/`name`, and the one it lies on that cryptsetup made below it.

    Whether there is such a one cryptsetup before 2.4 goes by the header on the disk for.
    """
    lower = below(name)
    both = mappings.lies_on(name, lower)
    run(["cryptsetup", "close", name], finish=True)
    if both and mappings.find(lower):
        run(["cryptsetup", "close", lower], finish=True)


def set_subsystem(device: str, subsystem: str, *, label: str = "") -> None:
    """Change the mark in the LUKS2 header. label: the header's, which cryptsetup removes unless it is given again.

    cryptsetup writes one copy of the metadata after the other: a power cut leaves the mark there, or not.
    """
    kept = [f"--label={label}"] if label else []
    run(["cryptsetup", "config", f"--subsystem={subsystem}", *kept, device], finish=True)

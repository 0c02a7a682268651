"""A device that holds data is encrypted in place, by cryptsetup's reencryption.

cryptsetup would move data and write the header in one go, which a power cut may leave half done. So it prepares the
header on a device in memory that is as large; `write` puts it onto the disk, in an order that can be gone on with.

Uses: cryptsetup (reencrypt, repair).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, cryptsetup, loop, luks_conversion, luks_header
from cryptpilot_boot.system.luks_conversion import SHIFT, TAKEN
from cryptpilot_boot.system.mounts import MORTAL
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.luks_header import Header

_CHUNK = 1 << 20
# ext4's superblock begins at 1024; its magic is in the first sector of it. linux/Documentation/filesystems/ext4
_SUPERBLOCK = (1024, 512)
_LONGEST_STEP = 600.0  # seconds that cryptsetup may take to come to the end of a step


def prepare(size: int, passphrase: Passphrase, *, subsystem: str, sector_size: int, work: Path) -> Header:
    """Return the header for a device of `size` bytes whose content gets encrypted in place.

    work: a directory in memory, where cryptsetup has the header for a moment. No disk is touched. Raises ProgramError.
    """
    header = luks_header.Header(size)
    try:
        with loop.attached(header.descriptor) as device:
            run(
                [
                    *MORTAL,
                    "cryptsetup",
                    "reencrypt",
                    "--encrypt",
                    "--init-only",
                    "--type=luks2",
                    "--batch-mode",
                    f"--reduce-device-size={TAKEN >> 20}M",
                    *cryptsetup.CIPHER,
                    f"--sector-size={sector_size}",
                    *cryptsetup.DERIVATION[passphrase.strong],
                    f"--subsystem={subsystem}",
                    "--key-file=-",
                    device,
                ],
                stdin=passphrase.reveal(),
                cwd=str(work),
            )
    except BaseException:
        header.close()
        raise
    return header


def write(device: block.Device, header: Header) -> None:
    """Put a header that was prepared before the data of a device. The last `TAKEN` bytes of the device are free.

    Until the superblock is gone, only free space has changed. From then on `saved` finds a copy of the header in the
    free space; write it again by its `write_to`. Raises DeviceError.
    """
    end = device.size - SHIFT
    with block.writing(device.node) as target:
        block.require_same(target, device)
        for done in range(0, SHIFT, _CHUNK):
            block.write(target, os.pread(target, _CHUNK, done), end + done)
            block.write(target, os.pread(header.descriptor, _CHUNK, done), end - SHIFT + done)
        os.fsync(target)
        start, length = _SUPERBLOCK
        block.write(target, bytes(length), start)
        os.fsync(target)
    header.write_to(device)


def saved(device: block.Device) -> Header | None:
    """Return the header that `write` left in the free room; None without one.

    The caller has to find out whether it can be trusted. It is the caller's to close. Raises DeviceError.
    """
    if device.size < 2 * TAKEN:
        return None
    header = luks_header.Header()
    try:
        with Path(device.node).open("rb", buffering=0) as source:
            for done in range(0, SHIFT, _CHUNK):
                block.write(header.descriptor, os.pread(source.fileno(), _CHUNK, device.size - TAKEN + done), done)
    except OSError as error:
        header.close()
        raise DeviceError(f"{device.path}: cannot be read: {error.strerror}") from None
    if luks_header.mark(header.path):
        return header
    header.close()
    return None


def mend(device: str, passphrase: Passphrase) -> None:
    """Repeat an interrupted step, if there is one; its header was checked. It may have been the last one.

    Raises ProgramError.
    """
    _run(["repair"], device, passphrase)


def go_on(device: str, passphrase: Passphrase) -> None:
    """Encrypt the rest; its header was checked, and no step was interrupted.

    An interruption is heard at the end of a step. Raises ProgramError.
    """
    _run(["reencrypt", "--resume-only"], device, passphrase)


def end(device: block.Device) -> None:
    """End an encryption that has nothing left to encrypt, as its header says, which was checked.

    cryptsetup does that once it has written over where the first data were for a while. If it is ended before, it does
    not find back: it looks for data to encrypt, and fails (2.6.1). Raises DeviceError.
    """
    with block.writing(device.node) as target:
        block.require_same(target, device)
        luks_header.replace_metadata(target, luks_conversion.completed(luks_header.metadata(target)))


def _run(action: Sequence[str], device: str, passphrase: Passphrase) -> None:
    command = [*MORTAL, "cryptsetup", *action, "--batch-mode", "--key-file=-", device]
    run(command, stdin=passphrase.reveal(), patience=_LONGEST_STEP)

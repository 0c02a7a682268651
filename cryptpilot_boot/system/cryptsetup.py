"""LUKS2 through the cryptsetup program.

Uses: cryptsetup. Every function raises ProgramError when it fails. Passphrases go in by pipe and are taken byte
for byte (`--key-file=-`: a newline is no end). A mapping or a mark is not left half made: what makes it, or takes it
away, is finished whatever happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.system.run import raise_if_interrupted, run

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase

# Source: cryptsetup(8) under "RETURN CODES".
WRONG_PASSPHRASE = 2

_CIPHER = [
    "--cipher=aes-xts-plain64",
    "--key-size=512",
    "--hash=sha256",
    "--sector-size=4096",
]
# Stretching is for what a person can remember. 1,000 iterations is the least PBKDF2 allows.
_DERIVATION = {
    True: ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"],
    False: ["--pbkdf=argon2id"],
}


def luks_format(device: str, passphrase: Passphrase, *, subsystem: str) -> None:
    """Write a new LUKS2 header to `device`. Whatever the device held is lost."""
    run(
        [
            "cryptsetup",
            "luksFormat",
            "--type=luks2",
            "--batch-mode",
            *_CIPHER,
            *_DERIVATION[passphrase.strong],
            f"--subsystem={subsystem}",
            "--key-file=-",
            device,
        ],
        stdin=passphrase.reveal(),
    )


def luks_open(device: str, name: str, passphrase: Passphrase) -> None:
    """Open the LUKS2 device as /dev/mapper/`name`. The passphrase is verified by opening.

    Not begun after an interruption: nobody would close it.
    """
    raise_if_interrupted()
    run(
        ["cryptsetup", "open", "--type=luks2", "--key-file=-", device, name],
        stdin=passphrase.reveal(),
        finish=True,
    )


def close(name: str) -> None:
    """Remove the mapping /dev/mapper/`name`."""
    run(["cryptsetup", "close", name], finish=True)


def set_subsystem(device: str, subsystem: str) -> None:
    """Change the mark in the LUKS2 header."""
    run(["cryptsetup", "config", f"--subsystem={subsystem}", device], finish=True)

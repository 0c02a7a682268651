"""Failures of programs that work on a volume's device, as errors for a person."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.keys.failures import wrong_secret
from cryptpilot_boot.system import cryptsetup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Volume


@contextmanager
def telling(volume: Volume, what: str, hint: str = "") -> Iterator[None]:
    """Turn a ProgramError into an error that says what could not be done to the volume's device.

    what: for instance "cannot be formatted". hint: replaces the usual one, which is the kernel's log and the same
    command again.
    """
    try:
        yield
    except ProgramError as error:
        verb = "open" if volume.temporary else "init"
        again = f"see what the kernel says of it (dmesg); then again: cryptpilot {verb} {volume.volume}"
        said = cryptsetup.said(error, volume.dev)
        raise CryptpilotError(f"{volume.dev} {what}: {said}", error.hint or hint or again) from None


@contextmanager
def telling_a_wrong_secret(volume: Volume) -> Iterator[None]:
    """Turn a ProgramError of cryptsetup into WrongSecret, or into why the device cannot be opened."""
    try:
        yield
    except ProgramError as error:
        if error.status != cryptsetup.WRONG_PASSPHRASE:
            raise CryptpilotError(
                f"{volume.dev} cannot be opened: {cryptsetup.said(error, volume.dev)}",
                error.hint or "see what the kernel says of it (dmesg)",
            ) from None
        raise wrong_secret(volume, "no key slot takes it") from None

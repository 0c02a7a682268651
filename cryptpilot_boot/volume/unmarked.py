"""LUKS volumes without a mark of cryptpilot: what made them, and how their data are kept.

The existing Rust implementation writes a mark only since version 0.4. cryptsetup by hand, the programs of crypttab and
clevis write none. No advice given here overwrites such a volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import luks_header
from cryptpilot_boot.volume import identity
from cryptpilot_boot.volume.found import MARKS

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.system import block


def is_unmarked(found: block.Signature | None) -> bool:
    """Tell whether a device holds LUKS1 or LUKS2 without a mark of cryptpilot. found: its content."""
    return (
        found is not None
        and (found.kind, found.version) in (("crypto_LUKS", "1"), ("crypto_LUKS", "2"))
        and found.subsystem not in MARKS
    )


def refusal(volume: Volume, found: block.Signature) -> DeviceError:
    """Return why a persistent volume is not opened by LUKS without a mark, and what can be done.

    Raises DeviceError if the volume is bound and its header cannot be compared.
    """
    if found.version != "2":
        return DeviceError(
            f"{volume.dev} holds a LUKS1 volume, and only LUKS2 is opened",
            f"to keep its data, convert it while it is closed: cryptsetup luksHeaderBackup {volume.dev}"
            f" --header-backup-file FILE && cryptsetup convert {volume.dev} --type luks2; then:"
            f" cryptpilot adopt {volume.volume}",
        )
    if volume.identity:
        header, facts = luks_header.copy_from(volume.dev)
        header.close()
        if objection := another(volume, facts):
            return objection
    return DeviceError(
        f"{volume.dev} holds a LUKS2 volume without the mark of cryptpilot",
        f"if it is {volume.volume}, made by cryptpilot 0.1 to 0.3.2 or by another program, this takes it with all its"
        f' data: cryptpilot adopt {volume.volume}; if not, check "dev" in the configuration',
    )


def another(volume: Volume, facts: luks_header.Facts) -> DeviceError | None:
    """Return why a volume without a mark is not the bound one; None if it is, or if the name is not bound."""
    objection = identity.objection(volume, facts, volume.dev)
    if objection is None or volume.identity is None:
        return None
    return DeviceError(
        objection.what,
        f'nothing was changed; if disks changed places, put them back or correct "dev"; if this one is to be'
        f" {volume.volume} from now on: rm {volume.identity.source}, then cryptpilot adopt {volume.volume}",
    )

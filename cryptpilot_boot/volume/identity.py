"""The binding of a name to one LUKS2 volume.

If one secret opens several volumes, a disk put in the place of another would open. The volume key tells them apart: its
digest is in the header, and fits no other key. So the digest is kept in the configuration, of which the initrd image
has a copy. A header with another digest is refused.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptpilot_boot.config import Identity
from cryptpilot_boot.config.schema import UUID
from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.system import files

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.system.luks_header import Facts


def of(facts: Facts, path: Path) -> Identity:
    """Return what binds a name to the volume with such a header. path: the file that will hold it."""
    return Identity(_uuid(facts), _digests(facts), path)


def objection(volume: Volume, facts: Facts, name: str) -> DeviceError | None:
    """Return why a header is not the bound volume's; None if it is, or if the volume is not bound.

    name: the device or file of the header, as a person knows it.
    """
    bound = volume.identity
    if bound is None or (facts.volume_keys and _digests(facts) <= bound.volume_keys):
        return None
    if facts.reencrypting and _digests(facts) & bound.volume_keys:
        return None  # one of the two volume keys is bound, and cryptsetup proves by both that they belong together
    found = _uuid(facts)
    if found and found == bound.uuid:
        return DeviceError(
            f"{name} has the UUID of volume {volume.volume} ({found}), and another volume key than that volume was"
            " bound with",
            f'if "cryptsetup reencrypt" changed it: cryptpilot bind {volume.volume}; otherwise treat this disk as'
            " tampered with",
        )
    return DeviceError(
        f"{name} holds another volume than the one that was initialized or bound as {volume.volume}: its UUID is"
        f" {found or 'none'}, and {bound.uuid or 'none'} is expected",
        f'if disks changed places, put them back or correct "dev"; if this one belongs here: cryptpilot bind'
        f" {volume.volume}",
    )


def write(volume: Volume, identity: Identity) -> None:
    """Write the binding of a volume. Raises CryptpilotError; the old file is kept then."""
    keys = "".join(f'    "{key}",\n' for key in sorted(identity.volume_keys))
    text = (
        f"# Written by cryptpilot init and cryptpilot bind: the LUKS2 volume that belongs to {volume.volume}.\n"
        "# No other volume is opened under this name, even if the same secret opens it. If another disk belongs here:\n"
        f"#     cryptpilot bind {volume.volume}\n"
        + (f'uuid = "{identity.uuid}"\n' if identity.uuid else "")
        + f"# SHA-256 of the digests by which the header knows its volume key.\nvolume_keys = [\n{keys}]\n"
    )
    try:
        files.replace(identity.source, text)
    except OSError as error:
        raise _cannot_be_written(identity.source, error) from None


def require_replaceable(volume: Volume) -> None:
    """Raise CryptpilotError if a volume is bound and its binding could not be replaced."""
    if volume.identity is None:
        return
    try:
        files.require_replaceable(volume.identity.source)
    except OSError as error:
        what = _cannot_be_written(volume.identity.source, error).what
        raise CryptpilotError(
            what, "the volume is bound to its disk by that file, and a new one would never open; make it writable first"
        ) from None


def _cannot_be_written(path: Path, error: OSError) -> CryptpilotError:
    return CryptpilotError(f"{path}: cannot be written: {error.strerror}", "see that its file system can be written to")


def _digests(facts: Facts) -> frozenset[str]:
    return frozenset(hashlib.sha256(key.encode()).hexdigest() for key in facts.volume_keys)


def _uuid(facts: Facts) -> str:
    """Return the UUID of a header, "" if it has none. Anyone can write that field: only a valid UUID is quoted."""
    return facts.uuid.lower() if UUID.fullmatch(facts.uuid.lower()) else ""

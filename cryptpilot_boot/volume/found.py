"""What a device was found to hold: the marks of cryptpilot, and the words for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptpilot_boot.system import block

# The LUKS2 header's subsystem field says whose volume it is and how far it got. The first two words are those of
# the existing Rust implementation. Temporary volumes have a word of their own, so that a slip in `dev` never
# lets one write over a persistent volume.
INITIALIZING = "cryptpilot-initializing"
COMPLETE = "cryptpilot"
TEMPORARY = "cryptpilot-otp"
MARKS = (INITIALIZING, COMPLETE, TEMPORARY)


def describe(found: block.Signature | None) -> str:
    """Say what a device holds."""
    if found is None:
        return "nothing"
    if found.kind != "crypto_LUKS":
        return f"data of type {found}"
    named = {
        COMPLETE: "an initialized cryptpilot volume",
        INITIALIZING: "a cryptpilot volume whose init was interrupted",
        TEMPORARY: "a temporary cryptpilot volume",
    }
    return named.get(found.subsystem, f"a {found} header of somebody else")


def word(found: block.Signature) -> str:
    """Return the word by which --overwrite of `open` names what a device holds: libblkid's, such as "ext4".

    What carries the mark of a persistent volume has a word of its own, so that the word for anybody's LUKS does not
    name it.
    """
    return COMPLETE if found.subsystem in (COMPLETE, INITIALIZING) else found.kind

"""What a device was found to hold: the marks of cryptpilot, and the words for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError

if TYPE_CHECKING:
    from cryptpilot_boot.system import block

# The LUKS2 header's subsystem field says whose volume it is and how far it got. The first two words are those of
# the existing Rust implementation. Temporary volumes have a word of their own, so that a slip in `dev` never
# lets one write over a persistent volume.
INITIALIZING = "cryptpilot-initializing"
COMPLETE = "cryptpilot"
TEMPORARY = "cryptpilot-otp"
# Its data are being encrypted where they are: they are all there, and nothing else may be made of it.
CONVERTING = "cryptpilot-converting"
MARKS = (INITIALIZING, COMPLETE, TEMPORARY, CONVERTING)


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
        CONVERTING: "a cryptpilot volume whose conversion was interrupted",
    }
    return named.get(found.subsystem, f"a {found} header of another program")


def moved(path: str) -> DeviceError:
    """Say that a path leads to another device than before. path: as the configuration has it."""
    return DeviceError(f"{path} leads to another device than a moment ago", f"see where: readlink -f {path}")


def changed(path: str) -> DeviceError:
    """Say that a device was found to be another than the one that a person agreed to. path: as for `moved`."""
    return DeviceError(
        f"{path} is not what it was a moment ago: another device, or other content",
        f"nothing was changed; see what it is now: lsblk --fs {path}",
    )


def unconverted(device: str, name: str) -> DeviceError:
    """Say of a device that its conversion is not finished, and how it goes on. name: of the volume."""
    return DeviceError(
        f"{device} is not completely converted: the conversion was interrupted, and no data is lost",
        again(name),
    )


def again(name: str) -> str:
    """Say how a conversion in place goes on. name: of the volume."""
    return (
        "attach the disk to the machine where it began, and run the same command again to continue:"
        f" cryptpilot convert --device DISK --volume {name}"
    )


def word(found: block.Signature) -> str:
    """Return the word by which --overwrite of `open` names what a device holds: libblkid's, such as "ext4".

    What carries the mark of a persistent volume has a word of its own, so that the word for anybody's LUKS does not
    name it.
    """
    return COMPLETE if found.subsystem in (COMPLETE, INITIALIZING, CONVERTING) else found.kind

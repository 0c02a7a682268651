"""The content of a device: the marks of cryptpilot, and words for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError

if TYPE_CHECKING:
    from cryptpilot_boot.system import block

# The mark is the subsystem field of the LUKS2 header. It says that a volume is cryptpilot's, and how far it was made.
# The first two marks are those of the existing Rust implementation. Temporary volumes have a mark of their own, so that
# a mistake in `dev` never overwrites a persistent volume.
INITIALIZING = "cryptpilot-initializing"
COMPLETE = "cryptpilot"
TEMPORARY = "cryptpilot-otp"
# An encryption in place has begun: all data are there, and no other command may change the device.
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
    """Say that a path leads to another device than before. path: as in the configuration."""
    return DeviceError(f"{path} leads to another device than a moment ago", f"see where: readlink -f {path}")


def changed(path: str) -> DeviceError:
    """Say that a device was found to be another than the one that a person agreed to. path: as for `moved`."""
    return DeviceError(
        f"{path} is not what it was a moment ago: another device, or other content",
        f"nothing was changed; see what it is now: lsblk --fs {path}",
    )


def unconverted(device: str, name: str) -> DeviceError:
    """Say that the conversion of a device is not finished, and how to continue it. name: of the volume."""
    return DeviceError(
        f"{device} is not completely converted: the conversion was interrupted, and no data is lost",
        again(name),
    )


def again(name: str) -> str:
    """Say how to continue a conversion in place. name: of the volume."""
    return (
        "attach the disk to the machine where it began, and run the same command again to continue:"
        f" cryptpilot convert --device DISK --volume {name}"
    )


def word(found: block.Signature) -> str:
    """Return the word for the content of a device in `open --overwrite`: that of libblkid, such as "ext4".

    A persistent volume with a mark has another word: "crypto_LUKS", which stands for any LUKS, does not name it.
    """
    return COMPLETE if found.subsystem in (COMPLETE, INITIALIZING, CONVERTING) else found.kind

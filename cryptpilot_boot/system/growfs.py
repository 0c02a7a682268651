"""File systems that take the room their device has come to have.

Uses: resize2fs, e2fsck (e2fsprogs); xfs_growfs (xfsprogs).
"""

from __future__ import annotations

import dataclasses
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system.run import raise_if_interrupted, run

if TYPE_CHECKING:
    from collections.abc import Sequence

_XFS = struct.Struct(">4sIQ")  # the beginning of its superblock: magic, bytes of a block, blocks
_MOUNTS = Path("/proc/self/mountinfo")


@dataclasses.dataclass(frozen=True)
class GrowMethod:
    """How a kind of file system grows.

    mounted: the command, to which the mount point is added, or the device if by_device. unmounted: the commands for one
    that is not mounted, in order, to which the device is added; () where it has to be mounted. by_hand: what a person
    can do if no command can.
    """

    mounted: Sequence[str] = ()
    by_device: bool = False
    unmounted: Sequence[Sequence[str]] = ()
    by_hand: str = ""


_EXT = GrowMethod(["resize2fs"], by_device=True, unmounted=(["e2fsck", "-f", "-p"], ["resize2fs"]))
_ACCEPT = {"e2fsck": (0, 1)}  # e2fsck(8): 1 is "errors corrected"
# As libblkid names them.
KINDS = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": GrowMethod(["xfs_growfs"]),
    "swap": GrowMethod(by_hand="make it again: swapoff {0}; mkswap {0}; swapon {0}"),
    "vfat": GrowMethod(by_hand="no program makes it larger; copy what it holds, then mkfs.vfat {0}"),
    "btrfs": GrowMethod(by_hand="grow it: btrfs filesystem resize max MOUNT-POINT"),
    "LVM2_member": GrowMethod(by_hand="grow it: pvresize {0}"),
}


def mount_point(number: str, mounts: Path = _MOUNTS) -> str:
    """Return the mount point of the whole file system on a device, "" if it is not mounted. number: "major:minor"."""
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        # Source: proc(5): ID, parent's ID, major:minor, root, mount point, ...
        fields = line.split(" ")
        if len(fields) > 4 and fields[2] == number and fields[3] == "/":
            return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return ""


def fills(kind: str, device: str, size: int) -> bool:
    """Tell whether a file system that is not mounted takes all `size` bytes of a device; False if that is unknown."""
    if kind != "xfs":
        return False
    with Path(device).open("rb", buffering=0) as source:
        magic, block, blocks = _XFS.unpack(source.read(_XFS.size))
    return bool(magic == b"XFSB" and block * (blocks + 1) > size)


def grow(kind: str, device: str, mounted: str) -> bool:
    """Have a file system fill its device; False for one that has to be mounted first, and is not.

    kind: a key of KINDS without `by_hand`. mounted: its mount point, "" for none. Once begun it is finished. Raises
    ProgramError.
    """
    one = KINDS[kind]
    if mounted:
        commands: Sequence[Sequence[str]] = [[*one.mounted, device if one.by_device else mounted]]
    else:
        commands = [[*command, device] for command in one.unmounted]
    for command in commands:
        raise_if_interrupted()
        try:
            run(command, accept=_ACCEPT.get(command[0], (0,)), finish=True)
        except ProgramError as error:
            if command[0] == "e2fsck" and not error.hint:
                raise ProgramError(f"it is damaged: {error.what}", f"repair it first: e2fsck -f {device}") from None
            raise
    return bool(commands)

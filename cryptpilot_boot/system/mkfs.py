"""File systems, made and checked.

Uses: mkfs.ext4, e2fsck (e2fsprogs); mkfs.xfs, xfs_repair (xfsprogs); mkfs.vfat, fsck.vfat (dosfstools); mkswap
(util-linux).
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system import block
from cryptpilot_boot.system.programs import is_there
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

Regions = list[tuple[int, int]]
"""Parts of a device: where each begins, and how long it is, in bytes."""


@dataclasses.dataclass(frozen=True)
class FileSystem:
    """A kind of file system.

    command: makes it, whatever the device seems to hold. minimum: bytes below which it is not made. options: more of
    the command, for a volume with integrity (first argument) and for a temporary one (second). layout: which parts
    the file system's own tools read before they were ever written, by what the command (first argument) would do to
    the device (second). check: finds damage, and mends what needs no question, () if there is nothing to check;
    healthy: its exit statuses when all is well. journal: shows whether there is one to replay, where the checker
    cannot do that and takes what is missing for damage; mount(8) replays it.
    """

    command: Sequence[str]
    minimum: int
    options: Callable[[bool, bool], Sequence[str]] = lambda _, __: ()
    layout: Callable[[Sequence[str], str], Regions] = lambda _, __: []
    check: Sequence[str] = ()
    healthy: Sequence[int] = (0,)
    journal: Sequence[str] = ()


# The kernel reads the rest of a page that is written in part: with integrity nothing may be smaller, whatever sectors
# the device has.
_PAGE = 4096


def _ext4_options(integrity: bool, temporary: bool) -> Sequence[str]:
    """Name the work that is left for later. It is explicit, because the defaults of mkfs depend on the running kernel.

    Inode tables that are not written can only be left where unwritten sectors can be read; the journal's blocks only
    where it is never replayed.
    """
    return [
        *(["-b", str(_PAGE)] if integrity else []),
        "-E",
        f"lazy_itable_init={int(not integrity)},lazy_journal_init={int(temporary)}",
    ]


def _xfs_options(integrity: bool, _: bool) -> Sequence[str]:
    return ["-s", f"size={_PAGE}"] if integrity else []


def _vfat_options(integrity: bool, _: bool) -> Sequence[str]:
    return ["-S", str(_PAGE)] if integrity else []


def _ext4_layout(command: Sequence[str], device: str) -> Regions:
    """Find the backups of the superblock: they are shorter than a sector, so writing one reads what was there."""
    _, plan = run([*command, "-n", device])
    block_size = int(re.findall(r"(\d+)k blocks", plan)[0]) << 10
    _, _, backups = plan.partition("Superblock backups stored on blocks:")
    return [(int(number) * block_size, block_size) for number in re.findall(r"\d+", backups)]


def _xfs_layout(command: Sequence[str], device: str) -> Regions:
    """Find the allocation groups: xfs_repair reads more at the beginning of each than there is."""
    _, plan = run([*command, "-N", device])
    facts = dict(re.findall(r"(agcount|agsize|bsize)=(\d+)", plan))
    size = int(facts["agsize"]) * int(facts["bsize"])
    return [(number * size, min(size, 1 << 20)) for number in range(int(facts["agcount"]))]


# What GRUB 2.02 reads, and e2fsck 1.43 checks. The defaults of e2fsprogs 1.47 have more: an older e2fsck refuses that.
_BOOT_FEATURES = (
    *("none", "dir_index", "dir_nlink", "ext_attr", "extent", "extra_isize", "filetype", "flex_bg", "has_journal"),
    *("huge_file", "large_file", "metadata_csum", "resize_inode", "sparse_super", "64bit"),
)

_UNREPLAYED = "<DIRTY>"  # as xfs_logprint prints it


KINDS = {
    "ext4": FileSystem(
        ["mkfs.ext4", "-F"],
        minimum=8 << 20,  # in less, blocks of 4 KiB leave no room for a journal, and it is made without
        options=_ext4_options,
        layout=_ext4_layout,
        check=["e2fsck", "-f", "-p"],
        healthy=(0, 1),  # e2fsck(8): 1 is "errors corrected"
    ),
    "xfs": FileSystem(
        ["mkfs.xfs", "-f"],
        minimum=300 << 20,
        options=_xfs_options,
        layout=_xfs_layout,
        check=["xfs_repair", "-n"],
        journal=["xfs_logprint", "-t"],
    ),
    "vfat": FileSystem(
        ["mkfs.vfat", "-I"], minimum=64 << 10, options=_vfat_options, check=["fsck.vfat", "-a"], healthy=(0, 1)
    ),
    "swap": FileSystem(["mkswap", "-f"], minimum=40 << 10),
}


def require(kind: str) -> None:
    """Raise ProgramError unless what makes a file system of `kind` is installed."""
    program = KINDS[kind].command[0]
    if not is_there(program):
        raise ProgramError(f"{program}: program not found", f"install {program}")


def make(kind: str, device: str, *, integrity: bool, temporary: bool) -> None:
    """Make a file system of `kind` (a key of KINDS) on a device nothing was ever written to.

    With `integrity` a sector cannot be read before it was written. What the file system, its tools, and those that
    look for file systems read before that is written here: little, whatever the device's size. Raises ProgramError.
    """
    one = KINDS[kind]
    command = [*one.command, *one.options(integrity, temporary)]
    if integrity:
        block.clear(device, block.probed(block.look_up(device).size))
        block.clear(device, one.layout(command, device))
    run([*command, device])


def make_boot(device: str) -> None:
    """Make an ext4 for `/boot` of a system that may be older than this machine: its boot loader and e2fsck use it.

    Raises ProgramError.
    """
    one = KINDS["ext4"]
    run([*one.command, "-O", ",".join(_BOOT_FEATURES), *one.options(False, False), device])


def check(kind: str, device: str) -> str:
    """Check a file system, and repair what can be repaired without a question.

    kind: one that has a `check`. Returns what that says of damage that is left, "" without any. Raises
    ProgramError when the program is not there.
    """
    one = KINDS[kind]
    if one.journal and _UNREPLAYED in run([*one.journal, device])[1]:
        return ""
    try:
        run([*one.check, device], accept=one.healthy)
    except ProgramError as error:
        if error.hint:  # it could not even be run
            raise
        return error.what
    return ""

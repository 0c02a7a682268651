"""File systems, checked without a change and copied block by block: unused blocks are not copied.

Uses: dumpe2fs, e2fsck, e2image (e2fsprogs); xfs_logprint, xfs_repair, xfs_copy (xfsprogs); dd (coreutils).
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system import block
from cryptpilot_boot.system.mounts import MORTAL
from cryptpilot_boot.system.programs import is_there
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CHUNK = 1 << 20  # bytes
_MOST_OUTPUT = 64 << 10  # bytes of what a check finds, which can be a line for each file


@dataclasses.dataclass(frozen=True)
class CloneMethod:
    """A kind of file system.

    copy: copies it from the device that comes next to the one after that, UUID and label included, and says how far
    it is; {log} stands for a file that it may write. check: finds damage
    and changes nothing. log: shows whether it was unmounted; unclean: what it then says when it was not. readonly:
    options with which the kernel does not write even to replay a journal; options: those with which it mounts a copy of
    what may be mounted already.
    """

    copy: Sequence[str]
    check: Sequence[str]
    log: Sequence[str]
    unclean: re.Pattern[str]
    readonly: Sequence[str]
    options: Sequence[str] = ()


KINDS = {
    "ext4": CloneMethod(
        copy=["e2image", "-ra", "-p"],
        check=["e2fsck", "-f", "-n"],
        log=["dumpe2fs", "-h"],
        unclean=re.compile(r"needs_recovery|^Filesystem state:(?!\s+clean$)", re.MULTILINE),
        readonly=["noload"],
    ),
    "xfs": CloneMethod(
        copy=["xfs_copy", "-d", "-L", "{log}"],  # by default it leaves one in /var/tmp
        check=["xfs_repair", "-n"],
        log=["xfs_logprint", "-t"],
        unclean=re.compile("<DIRTY>"),
        readonly=["norecovery"],
        options=["nouuid"],
    ),
}


def missing(kinds: Sequence[str]) -> list[str]:
    """Return the programs that are not installed of those that these kinds take."""
    needed = [KINDS[kind] for kind in kinds]
    programs = {argv[0] for one in needed for argv in (one.copy, one.check, one.log)}
    return sorted(program for program in programs if not is_there(program))


def fault(kind: str, device: str) -> str:
    """Say why a file system should not be copied as it is; "" when it is whole, and was unmounted.

    kind: a key of KINDS. Nothing is written to the device.
    """
    one = KINDS[kind]
    if one.unclean.search(run([*one.log, device])[1]):
        return "was not unmounted: its journal has to be replayed"
    try:
        run([*MORTAL, *one.check, device], keep=_MOST_OUTPUT)
    except ProgramError as error:
        if error.hint:  # it could not even be run
            raise
        return f"is damaged: {error.what}"
    return ""


def copy(kind: str, source: str, target: str, work: Path) -> None:
    """Copy a file system from one device to another that has at least its size. work: a directory for small files.

    All of it is on the device then. Raises ProgramError, DeviceError.
    """
    log = work / "log"
    log.unlink(missing_ok=True)
    options = [word.replace("{log}", str(log)) for word in KINDS[kind].copy]
    run([*MORTAL, *options, source, target], keep=_MOST_OUTPUT, meter=True)
    block.flush(target)


def copy_blocks(source: str, target: str) -> None:
    """Copy a device that is small and of no known kind, but for what is zero, to one that reads as zeros."""
    run([*MORTAL, "dd", f"if={source}", f"of={target}", "bs=1M", "conv=sparse,notrunc,fsync", "status=none"])


def copy_areas(source: str, target: int, areas: Sequence[tuple[int, int]]) -> None:
    """Copy parts of a disk to a new file, but for what is zero. areas: where they begin, and their lengths in bytes."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, length in areas:
            for at in range(start, start + length, _CHUNK):
                content = os.pread(descriptor, min(_CHUNK, start + length - at), at)
                if content.count(0) < len(content):
                    block.write(target, content, at)
    finally:
        os.close(descriptor)

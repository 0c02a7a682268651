"""ext4 that is made smaller, so that something else has room on its device. It is not mounted.

resize2fs does not record its progress. After a power cut, e2fsck repairs the file system only if all its questions are
answered by yes. No file system with other damage may get that. So a file system that is made smaller gets a mark, in
the field for its last mount point, which each mount overwrites.

Uses: dumpe2fs, e2fsck, resize2fs, tune2fs (e2fsprogs).
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.system.run import raise_if_interrupted, run

_SHRINKING = "cryptpilot-shrinking"
_LAST_MOUNTED = (1024 + 0x88, 64)  # where in the superblock, and bytes; linux/Documentation/filesystems/ext4
_TROUBLE = (4, 8)  # e2fsck(8), "EXIT CODE": errors left uncorrected; operational error, as without any superblock
_MOST_OUTPUT = 64 << 10  # bytes of what a check finds, which can be a line for each file


@dataclasses.dataclass(frozen=True)
class Size:
    """What a file system takes of its device. blocks: how many; block: bytes of one."""

    blocks: int
    block: int

    @property
    def bytes(self) -> int:
        """All of it, in bytes."""
        return self.blocks * self.block


def size(device: str) -> Size:
    """Return the size of a file system. Raises ProgramError."""
    said = run(["dumpe2fs", "-h", device])[1]
    return Size(_number(said, r"^Block count:\s+(\d+)$"), _number(said, r"^Block size:\s+(\d+)$"))


def least(device: str) -> int:
    """Return the blocks that resize2fs estimates a file system to need at least. It has been checked just before."""
    return _number(run(["resize2fs", "-P", device])[1], r"(\d+)\s*$")


def shrink(device: str, blocks: int) -> None:
    """Make a file system smaller that has just been found whole. Once begun it is finished."""
    raise_if_interrupted()
    run(["tune2fs", "-M", _SHRINKING, device], finish=True)
    run(["resize2fs", device, str(blocks)], finish=True)


def is_of_a_power_cut(device: str) -> bool:
    """Tell whether e2fsck may repair a file system with all its questions answered by yes.

    That holds in two cases. `shrink` was making it smaller, and it was not mounted since: it was whole before. Or only
    summaries and the superblock are wrong: a power cut leaves these half written.
    """
    with Path(device).open("rb", buffering=0) as source:
        last_mounted = os.pread(source.fileno(), _LAST_MOUNTED[1], _LAST_MOUNTED[0])
    if last_mounted.rstrip(b"\0").decode("ascii", "replace") == _SHRINKING:
        return True
    _, said = run(["e2fsck", "-f", "-n", device], accept=(0, *_TROUBLE), keep=_MOST_OUTPUT)
    # passes 1 to 4 read all files, directories and links
    found = re.search(r"^Pass 1: .*\nPass 2: .*\nPass 3: .*\nPass 4: .*\nPass 5: ", said, re.MULTILINE)
    return found is not None


def mend(device: str) -> None:
    """Mend all that e2fsck would ask about. Raises ProgramError."""
    run(["e2fsck", "-f", "-y", device], accept=(0, 1), finish=True, keep=_MOST_OUTPUT)


def _number(said: str, pattern: str) -> int:
    found = re.search(pattern, said, re.MULTILINE)
    if not found:
        raise ProgramError("e2fsprogs: did not say how large the file system is")
    return int(found[1])

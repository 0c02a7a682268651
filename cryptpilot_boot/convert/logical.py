"""Which logical volumes are known: those that are parts of one partition and nothing else. Pure.

It is an allow list, as all that is decided of an image.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.errors import printable
from cryptpilot_boot.system.lvm import Logical, Run, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

# What LVM's words for layouts and roles mean to a person; the first that fits is said. Source: lvmreport(7), lv_layout.
_MEANINGS = {
    "thin": "is thin, or holds thin volumes",
    "cache": "has a cache",
    "writecache": "has a cache",
    "raid": "is a RAID",
    "mirror": "is a mirror",
    "snapshot": "is a snapshot: remove it, or merge it",
    "origin": "has snapshots: remove them",
    "vdo": "is a VDO volume",
    "striped": "is striped",
}


def require_one(number: int, runs: Sequence[Run]) -> Logical:
    """Return the logical volume of a partition. runs: what LVM says of that; number: of the partition.

    Raises CryptpilotError unless its volume group has that volume and nothing else.
    """
    group = next((one.group for one in runs), "")
    if not group:
        raise refused(f"partition {number} is part of LVM, and of no volume group")
    named = f"volume group {printable(group)} of partition {number}"
    if any(one.devices != 1 for one in runs):
        raise refused(f"{named} has other disks or partitions as well", "only one of a single partition is known")
    used = [one for one in runs if one.volume]
    for one in used:
        _require_linear(one, named)
    volumes = sorted({one.volume for one in used})
    if not volumes:
        raise refused(f"{named} has no logical volume")
    if len(volumes) > 1:
        raise refused(
            f"{named} has several logical volumes: {', '.join(map(printable, volumes))}",
            "only the root's alone is known so far: move what the others hold, and remove them (lvremove)",
        )
    segments = tuple(Segment(one.at, one.length, one.start) for one in sorted(used, key=lambda one: one.at))
    _require_whole(segments, used[0].size, f"logical volume {printable(volumes[0])} in {named}")
    return Logical(group, volumes[0], used[0].size, segments)


def _require_linear(one: Run, named: str) -> None:
    if (one.layout, one.roles, one.kind) == ("linear", "public", "linear"):
        return
    words = [*one.layout.split(","), *one.roles.split(","), one.kind]
    what = next((meaning for word, meaning in _MEANINGS.items() if word in words), f"is {printable(one.layout)}")
    raise refused(
        f"logical volume {printable(one.volume.strip('[]'))} in {named} {what}", "only linear ones are known so far"
    )


def _require_whole(segments: Sequence[Segment], size: int, named: str) -> None:
    ends = [0, *itertools.accumulate(one.length for one in segments)]
    if [*(one.at for one in segments), size] != ends:
        raise refused(f"{named} does not lie on the partition as a whole")

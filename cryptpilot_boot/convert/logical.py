"""Which logical volumes are known: those that are parts of one partition and nothing else. Pure.

It is an allow list, as all that is decided of an image.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from cryptpilot_boot.convert.facts import SUSPENDED, SWAP, refused
from cryptpilot_boot.errors import printable
from cryptpilot_boot.system.lvm import Extents, Logical, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.convert.facts import Content

# The meaning of LVM's words for layouts and roles; the first that fits is used. Source: lvmreport(7), lv_layout.
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


def volumes(number: int, extents: Sequence[Extents]) -> list[Logical]:
    """Return the logical volumes of a partition. extents: what LVM says of that; number: of the partition.

    Raises CryptpilotError unless its volume group has these and nothing else, and all of them are linear.
    """
    group = next((one.group for one in extents), "")
    if not group:
        raise refused(f"partition {number} is part of LVM, and of no volume group")
    named = f"volume group {printable(group)} of partition {number}"
    if any(one.devices != 1 for one in extents):
        raise refused(
            f"{named} has other disks or partitions as well", "only a group on a single partition is supported"
        )
    used = [one for one in extents if one.volume]
    for one in used:
        _require_linear(one, named)
    names = sorted({one.volume for one in used})
    if not names:
        raise refused(f"{named} has no logical volume")
    return [_volume(group, name, [one for one in used if one.volume == name], named) for name in names]


def _volume(group: str, name: str, extents: Sequence[Extents], named: str) -> Logical:
    segments = tuple(Segment(one.at, one.length, one.start) for one in sorted(extents, key=lambda one: one.at))
    _require_whole(segments, extents[0].size, f"logical volume {printable(name)} in {named}")
    return Logical(group, name, extents[0].size, segments, extents[0].identity)


def root_among(number: int, held: Mapping[Logical, Content]) -> Logical:
    """Return the logical volume that can hold the root: the only one that is not swap space.

    held: what they hold; number: of their partition. Raises CryptpilotError unless there is exactly one,
    and for a system that hibernates.
    """
    for one, content in held.items():
        if content.kind == SUSPENDED:
            raise refused(
                f"logical volume {printable(one.name)} on partition {number} holds a system that hibernates",
                "boot the image, shut it down, and try again",
            )
    others = [one for one, content in held.items() if content.kind != SWAP]
    if not others:
        raise refused(f"the volume group of partition {number} has swap space alone")
    if len(others) > 1:
        names = ", ".join(printable(one.name) for one in others)
        raise refused(
            f"the volume group of partition {number} has several logical volumes: {names}",
            "only the root's own and swap are supported: move what the others hold, and remove them (lvremove)",
        )
    return others[0]


def _require_linear(one: Extents, named: str) -> None:
    if (one.layout, one.roles, one.kind) == ("linear", "public", "linear"):
        return
    words = [*one.layout.split(","), *one.roles.split(","), one.kind]
    what = next((meaning for word, meaning in _MEANINGS.items() if word in words), f"is {printable(one.layout)}")
    raise refused(
        f"logical volume {printable(one.volume.strip('[]'))} in {named} {what}", "only linear ones are supported"
    )


def _require_whole(segments: Sequence[Segment], size: int, named: str) -> None:
    ends = [0, *itertools.accumulate(one.length for one in segments)]
    if [*(one.at for one in segments), size] != ends:
        raise refused(f"{named} does not lie on the partition as a whole")

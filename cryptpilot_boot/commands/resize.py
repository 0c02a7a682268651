"""`cryptpilot resize`: a disk was enlarged; now the volume on it is, and its file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.volume.resize import resize as resize_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.volume.resize import Resized


def resize(config: Config, names: Sequence[str], report: Report) -> bool:
    """Have open volumes fill their devices, and their file systems the volumes; True when all do."""

    def resize_one(one: Volume) -> str:
        done = resize_volume(one, Sources(one, terms))
        return _told(one, done)

    with terms_of(config) as terms:
        return each(select(config, names), resize_one, report)


def _told(one: Volume, done: Resized) -> str:
    if done.after > done.before:
        said = f"{one.mapper_path} grew from {readable(done.before)} to {readable(done.after)}"
    else:
        said = f"{one.mapper_path} has all of its device already ({readable(done.after)})"
    parts = [said]
    if done.remark:
        parts.append(done.remark)
    if done.free:
        parts.append(
            f"its disk has {readable(done.free)} free behind the partition {one.dev}: grow that first (growpart,"
            " parted), and run this again"
        )
    return "; ".join(parts)

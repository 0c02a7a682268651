"""What systemd has to know of the volumes: units as systemd.generator(7) writes them. Pure.

An fstab line needs neither `_netdev` nor `nofail` to get on with a volume:

- the device of a volume requires the volume's unit, so that who waits for it has it opened, and hears at once when that
  fails; for as long as it may take the device itself is given time;
- what is mounted of a volume is wanted by local-fs.target rather than required: if it fails it fails by itself, and
  does not send the machine to emergency mode;
- where the key comes over the network and the volume is not open yet, the line is treated as if it said `_netdev`:
  local-fs.target would wait for the volume, the volume for the network, and the network for local-fs.target.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.boot import fstab

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cryptpilot_boot.boot.fstab import Entry
    from cryptpilot_boot.config import Volume

_TEMPLATE = "/usr/lib/systemd/system/cryptpilot@.service"
_LEAVES_IT_TO_US = ("nofail", "noauto", "x-systemd.automount")
# mounted by the initrd, or before any unit of ours
_BEFORE_US = ("/", "/usr")


@dataclasses.dataclass(frozen=True)
class Units:
    """What a generator writes.

    files: contents by path below the normal directory. links: targets by path there. netdev: fstab lines that
    systemd-fstab-generator has to read once more, as they are to be understood, for the early directory. masks: paths
    below the early directory that hide dependencies it makes, there or in the normal one.
    """

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    links: dict[str, str] = dataclasses.field(default_factory=dict)
    masks: list[str] = dataclasses.field(default_factory=list)
    netdev: list[str] = dataclasses.field(default_factory=list)


def units(volumes: Sequence[Volume], fstab_text: str, opened: Collection[str]) -> Units:
    """Decide what to write for the volumes of the system stage. opened: names of those that are open already."""
    made = Units()
    for one in volumes:
        service = f"cryptpilot@{escape(one.volume)}.service"
        device = f"{escape_path(one.mapper_path)}.device"
        made.links[f"{device}.requires/{service}"] = _TEMPLATE
        made.files[f"{device}.d/40-cryptpilot.conf"] = "[Unit]\nJobTimeoutSec=infinity\n"
        made.links[f"cryptpilot.service.wants/{service}"] = _TEMPLATE
        # a disk that is attached later
        made.links[f"{escape_path(one.dev)}.device.wants/{service}"] = _TEMPLATE
    for one, entry in _lines(volumes, fstab_text):
        unit, target = _unit_of(entry)
        made.masks.append(f"{target}.requires/{unit}")
        if one.needs_network and one.volume not in opened and target == "local-fs.target":
            made.netdev.append(_with_netdev(entry))
            made.masks.append(f"remote-fs.target.requires/{unit}")
            target = "remote-fs.target"
        made.links[f"{target}.wants/{unit}"] = f"../{unit}"
    return made


def _lines(volumes: Sequence[Volume], fstab_text: str) -> Iterator[tuple[Volume, Entry]]:
    """Yield the fstab lines that something of the boot would wait for, with their volumes."""
    named = {one.volume: one for one in volumes}
    for entry in fstab.parse(fstab_text):
        one = named.get(entry.mapper_name)
        if one and entry.where not in _BEFORE_US and not set(entry.options) & set(_LEAVES_IT_TO_US):
            yield one, entry


def _unit_of(entry: Entry) -> tuple[str, str]:
    """Return the unit systemd-fstab-generator makes of a line, and the target that requires it."""
    if entry.kind == "swap":
        return f"{escape_path(entry.source)}.swap", "swap.target"
    target = "remote-fs.target" if "_netdev" in entry.options else "local-fs.target"
    return f"{escape_path(entry.where)}.mount", target


def _with_netdev(entry: Entry) -> str:
    return re.sub(r"^(\s*\S+\s+\S+\s+\S+\s+\S+)", r"\1,_netdev", entry.line)


def escape(text: str) -> str:
    """Write a name as it stands in a unit's name; see systemd.unit(5), "String escaping"."""

    def code(byte: int, first: bool) -> str:
        char = chr(byte)
        if char == "/":
            return "-"
        plain = byte < 128 and (char.isalnum() or char in ":_" or (char == "." and not first))
        return char if plain else f"\\x{byte:02x}"

    return "".join(code(byte, place == 0) for place, byte in enumerate(text.encode("utf-8", "surrogateescape")))


def escape_path(path: str) -> str:
    """Write a path as it stands in the name of a mount's or a device's unit."""
    return escape("/".join(part for part in path.split("/") if part and part != ".")) or "-"

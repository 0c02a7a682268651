"""What is changed in the text of a system's files. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import grub
from cryptpilot_boot.units import fstab as lines

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptpilot_boot.config import Volume

_SETTING = re.compile(r"^(?![ \t]*#).*$", re.MULTILINE)
_SOURCE = re.compile(r"^([ \t]*)\S+")
_LINE = re.compile(r"^([ \t]*)([^#\s]\S*)([ \t]+/+(?:[ \t].*)?)$", re.MULTILINE)

_NO_SWAP = "# not in this image, for it was not encrypted (cryptpilot convert): "


def fstab(
    text: str, volume: Volume, boot: str, swapped_to: Collection[str] = (), root_names: Collection[str] = ()
) -> str:
    """Return /etc/fstab with the volume as its root. boot: UUID of a file system that is new for /boot, "" for none.

    swapped_to: the names of swap space that is gone; a line with one becomes a comment. root_names: the names of the
    root's file system; each line with one has the volume in its place. By a UUID, the host could supply another file
    system.
    """
    entries = lines.parse(text)
    gone = {one.number for one in entries if one.kind == "swap" and one.source in swapped_to}
    moved = {one.number for one in entries if one.source in root_names}
    changed = []
    for number, line in enumerate(text.split("\n"), 1):
        known = _SOURCE.sub(lambda old: f"{old[1]}{volume.mapper_path}", line) if number in moved else line
        changed.append(f"{_NO_SWAP}{known}" if number in gone else known)
    text = "\n".join(changed)
    line = f"\nUUID={boot} /boot ext4 defaults 0 2" if boot else ""
    return _LINE.sub(lambda old: f"{old[1]}{volume.mapper_path}{old[3]}{line}", text)


def without_gone(text: str) -> str:
    """Return the text of a file of /etc/default/grub's kind without parameters that name what is gone."""
    return _SETTING.sub(lambda line: grub.without_gone(line[0]), text)


def grub_settings(volume: Volume) -> str:
    """Return lines for grub-mkconfig that make the volume the only root of the kernel.

    By UUID, the host could supply another file system. Source: the manual of GRUB, "Simple configuration";
    /etc/default/grub, and what is in /etc/default/grub.d, is read after what grub-mkconfig found out by itself.
    """
    return (
        f"# Written by cryptpilot convert: the root is a volume, whose file system is known by no other name.\n"
        f"GRUB_DEVICE={volume.mapper_path}\n"
        "GRUB_DISABLE_LINUX_UUID=true\n"
        "GRUB_DISABLE_LINUX_PARTUUID=true\n"
    )

"""The name by which a volume's file knows its partition, which the root's partition is given. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.system.partition_table import MBR, Table, identified, partuuid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.errors import CryptpilotError

_BY_UUID = re.compile(r"/dev/disk/by-partuuid/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_BY_LABEL = re.compile(r"/dev/disk/by-partlabel/([A-Za-z0-9._-]{1,36})")
_IN_MBR = re.compile(r"/dev/disk/by-partuuid/([0-9a-f]{8})-([0-9a-f]{2})")


def name(table: Table, number: int, volume: Volume, texts: Iterable[str]) -> Table:
    """Return a table whose partition of this number has the name that is the volume's `dev`.

    texts: of files that may name partitions of the table, and stay as they are. Raises CryptpilotError if no partition
    can have that name, or if another one has it.
    """
    return _in_mbr(table, number, volume, texts) if table.label == MBR else _in_gpt(table, number, volume)


def _in_gpt(table: Table, number: int, volume: Volume) -> Table:
    by_uuid, by_label = _BY_UUID.fullmatch(volume.dev), _BY_LABEL.fullmatch(volume.dev)
    others = [one for one in table.partitions if one.number != number]
    root = table.partition(number)
    if by_uuid and by_uuid[1].upper() not in [one.uuid for one in others]:
        named = dataclasses.replace(root, uuid=by_uuid[1].upper())
    elif by_label and by_label[1] not in [one.name for one in others]:
        named = dataclasses.replace(root, name=by_label[1])
    elif by_uuid or by_label:
        raise refused(f"{volume.dev} is another partition of the image", f"choose another name in {volume.source}")
    else:
        raise refused(
            f'{volume.source} says dev = "{volume.dev}", which cannot be the name of a partition',
            f'say dev = "/dev/disk/by-partlabel/{volume.volume}": the partition gets that name; by-partuuid works too',
        )
    partitions = tuple(named if one.number == number else one for one in table.partitions)
    return dataclasses.replace(table, partitions=partitions)


def _in_mbr(table: Table, number: int, volume: Volume, texts: Iterable[str]) -> Table:
    """Give the disk the identifier by which its partitions are known: an MBR has nothing else that names one."""
    wanted = _IN_MBR.fullmatch(volume.dev)
    if wanted is None:
        raise _unfit(table, number, volume, "and partitions in an MBR have no names but by-partuuid/DISK-NUMBER")
    if int(wanted[2], 16) != number:
        raise _unfit(table, number, volume, f"and the root is partition {number}")
    if not partuuid(wanted[1], number):
        raise _unfit(table, number, volume, "and a disk with that identifier has no such names")
    if int(wanted[1], 16) == int(table.identifier, 16):
        return table
    lines = [line.lower() for text in texts for line in text.splitlines() if not line.lstrip().startswith("#")]
    for one in table.partitions:
        former = one.uuid.lower()
        if one.number != number and former and any(former in line for line in lines):
            raise refused(
                f"{volume.dev} gives the disk another identifier, and /etc/fstab or /etc/default/grub in it names"
                f" partition {one.number} by PARTUUID={former}",
                f"have it say UUID= there, {_instead(table, number)}",
            )
    return identified(table, f"0x{wanted[1]}")


def _unfit(table: Table, number: int, volume: Volume, why: str) -> CryptpilotError:
    return refused(f'{volume.source} says dev = "{volume.dev}", {why}', _instead(table, number).removeprefix("or "))


def _instead(table: Table, number: int) -> str:
    own = partuuid(table.identifier, number).lower()
    if own:
        return f'or say dev = "/dev/disk/by-partuuid/{own}", which it has'
    return (
        f'or say dev = "/dev/disk/by-partuuid/XXXXXXXX-{number:02x}", with eight hexadecimal digits in place of the X:'
        " the disk gets them for its identifier"
    )

"""Where cryptsetup finds a header in memory, and the data of a device: one by one, or together as one device.

It uses only the header in memory, not that of the disk, which may differ at each read. Before 2.4, cryptsetup looks for
the tags of a device with integrity where it reads the header. So it is given a device-mapper device that begins with
the header in memory and goes on as the disk does; once it has opened that, its mapping is moved onto the disk itself,
and lies there as any newer cryptsetup would have made it.

Uses: cryptsetup, dmsetup (device-mapper), and a loop device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import DeviceError, ProgramError
from cryptpilot_boot.system import block, files, loop, mappings
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.system.luks_header import Header

_SECTOR = 512
_APART_SINCE = (2, 4)  # of cryptsetup
# udev leaves devices with such UUIDs alone, see 00-cryptpilot.rules.
_UUID = "CRYPTPILOT-HEADER-{}"
_NAME = "cryptpilot-header-{}"


@dataclasses.dataclass(frozen=True)
class Composite:
    """A device that is put together. path: its node; number, disk: "major:minor", of it and of the disk below it.

    offset: sectors of 512 bytes that are the header's.
    """

    path: str
    number: str
    disk: str
    offset: int


@dataclasses.dataclass(frozen=True)
class Place:
    """Where cryptsetup finds a header and its data.

    options, device: its arguments. descriptors: what it inherits. whole: what was put together, None if nothing was.
    """

    device: str
    options: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    whole: Composite | None = None


@contextlib.contextmanager
def place(device: str, header: Header, *, integrity: bool, readonly: bool = False) -> Iterator[Place]:
    """Yield where cryptsetup finds a header and the data of a device. integrity: whether these are authenticated.

    What was put together is gone at the end, or as soon as the last program that uses it ends. Raises ProgramError and
    DeviceError.
    """
    if not integrity or takes_integrity_apart():
        yield Place(device, (f"--header={header.path}",), (header.descriptor,))
        return
    with _put_together(device, header, readonly) as whole:
        try:
            yield Place(whole.path, whole=whole)
        except ProgramError as error:
            raise ProgramError(error.what.replace(whole.path, device), error.hint, status=error.status) from None


@functools.cache
def takes_integrity_apart() -> bool:
    """Tell whether this cryptsetup takes the header of a device with integrity as a file."""
    _, text = run(["cryptsetup", "--version"])
    version = re.search(r"(\d+)\.(\d+)", text)
    return not version or (int(version[1]), int(version[2])) >= _APART_SINCE


@contextlib.contextmanager
def _put_together(device: str, header: Header, readonly: bool) -> Iterator[Composite]:
    """Yield a header and the data of a device as one device: what is written to the header's part goes to memory."""
    disk = block.look_up(device)
    head = os.fstat(header.descriptor).st_size // _SECTOR
    data = disk.size // _SECTOR - head
    if data <= 0:
        raise DeviceError(f"{device}: is too small: it has {block.readable(disk.size)}")
    name = _NAME.format(disk.number.replace(":", "-"))
    with loop.attached(header.descriptor) as memory:
        parts = [(0, head, block.look_up(memory).number, 0), (head, data, disk.number, head)]
        table = "".join(f"{start} {length} linear {of} {begin}\n" for start, length, of, begin in parts)
        run(
            [
                "dmsetup",
                "create",
                name,
                *(["--readonly"] if readonly else []),
                f"--uuid={_UUID.format(disk.number)}",
            ],
            stdin=memoryview(table.encode()),
            finish=True,
        )
        try:
            made = mappings.find(name)
            if made is None:
                raise DeviceError(f"{device}: the device joined from its header and its data is gone")
            yield Composite(f"/dev/{made.node.name}", mappings.number(made), disk.number, head)
        finally:
            # it does no harm if it stays; the next run removes it
            with log.telling(f"that {name} is no longer needed"):
                _remove(name)


def move(top: str, below: str, composite: Composite, *, readonly: bool = False) -> None:
    """Move a mapping of dm-integrity from a device that was put together to the disk, and let go of the former.

    top: the name of the mapping above, below: that of dm-integrity's. Nothing gets through to the lower one meanwhile,
    and what was written is on the disk before. The order is that of libcryptsetup's own, where it changes the options
    of an open device: lib/setup.c, _reload_device_with_integrity. Raises ProgramError; the mappings then are as they
    were.
    """
    _, table = run(["dmsetup", "table", below], finish=True)
    wanted = on_disk(table, composite)
    run(["dmsetup", "load", below, *(["--readonly"] if readonly else []), f"--table={wanted}"], finish=True)
    run(["dmsetup", "suspend", "--nolockfs", top], finish=True)
    try:
        _flush(below)
        run(["dmsetup", "resume", below], finish=True)
    finally:
        run(["dmsetup", "resume", top], finish=True)


def on_disk(table: str, composite: Composite) -> str:
    """Return the table of a mapping with the disk in place of what was put together.

    Raises ProgramError unless it is what cryptsetup makes on such a device.
    """
    lines = table.splitlines()
    words = lines[0].split() if len(lines) == 1 else []
    if words[2:5] != ["integrity", composite.number, str(composite.offset)]:
        raise ProgramError("cryptsetup: made an unexpected mapping for the integrity of the data")
    return " ".join([*words[:3], composite.disk, *words[4:]])


def _flush(name: str) -> None:
    """Flush a mapping to the disk: without a journal, dm-integrity keeps tags in memory until then.

    Raises ProgramError.
    """
    mapping = mappings.find(name)
    if mapping is None:
        raise ProgramError(f"cryptsetup: made no mapping {name}")
    try:
        files.sync(f"/dev/{mapping.node.name}")
    except OSError as error:
        raise ProgramError(f"/dev/mapper/{name}: cannot be written: {error.strerror}") from None


def remove_leftover(device: str) -> None:
    """Remove what was put together of a device by a run that was killed; the caller knows that no other is at work."""
    if not block.is_block_device(device):
        return
    number = block.look_up(device).number
    found = mappings.find(_NAME.format(number.replace(":", "-")))
    if found and found.uuid == _UUID.format(number):
        _remove(found.name)


def _remove(name: str) -> None:
    # one that is still in use goes when it no longer is
    run(["dmsetup", "remove", "--deferred", name], finish=True)

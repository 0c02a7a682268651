"""What a disk holds when the power fails: real writes are recorded in a machine, and taken apart out here.

Inside, device-mapper's log-writes target lies over a disk and records on another one all that reaches it: each write
with its data, flush, FUA, discard, and marks put there by the workload. Out here `cut` makes, for any moment of that
log, a disk as it may have been left. Load the module ``dm-log-writes`` (`start_uml(modules=...)`) and have the
workload use `logged_device`.

The kernel logs nothing when it is issued. A write that has completed waits; a flush takes along those that had
completed when it was issued, and once it has completed itself they are logged, in the order of their completion, and
the flush after them. Discards are treated as writes. A FUA write is logged at once when it completes, a mark when it is
made. So, of the entries before a moment of the log:

- those before the last flush have been made durable by it, and a FUA write by itself;
- the others had completed, but were still in the disk's cache: nobody knows how much of them is there;
- and the entry just after the moment was under way, FUA or not.

Each of the uncertain writes is there, not there, or torn: then each of its 512-byte sectors is there or not. A disk
promises no more than that, and some keep to no more.

What this cannot show: a log tells when a write completed, not when it was issued. FUA writes that were under way at
the same time are taken for one after the other, and a write in the cache for later than the FUA writes that completed
before the next flush. Any disk that `cut` makes was possible; some that were possible it does not make.
"""

from __future__ import annotations

import enum
import os
import random
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.run import LabError, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = "dm-log-writes"
"""The module to have loaded beside the machine's own."""
END = "dm-log-writes-end"
"""The mark the kernel makes when the log is closed."""
SECTOR = 512
"""The bytes that a disk writes as a whole or not at all."""

_MAGIC = 0x6A736677736872
_SUPERBLOCK = struct.Struct("<QQQI")  # magic, version, entries, bytes in a sector
_ENTRY = struct.Struct("<QQQQ")  # first sector, sectors, flags, bytes of a mark's text
_DMSETUP = "DM_DISABLE_UDEV=1 dmsetup"  # or else it leaves the making of /dev/mapper/... to udev, which is not there
_MARK = re.compile(r"[\w.:=/+-]+")


class Flag(enum.IntFlag):
    """What the kernel notes of an entry."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


@dataclass(frozen=True)
class Entry:
    """One entry of a log.

    start, length: where on the disk, in bytes; a mark and a mere flush have no length.
    payload: where in the log its data begins, in bytes; a discard has none.
    mark: the text of a mark.
    """

    start: int
    length: int
    flags: Flag
    payload: int
    mark: str = ""


@dataclass(frozen=True)
class Log:
    """What a log disk holds, in the log's own order. The data stays in the image at `path`.

    A moment is a number from 0 to the number of entries: so many entries had completed.
    """

    path: Path
    entries: tuple[Entry, ...]


def logged_device(name: str) -> str:
    """Return the path inside the machine of the device that records what is written to it."""
    return f"/dev/mapper/{name}"


def start_logging(name: str, disk: str, log: str) -> str:
    """Return the shell line that lays the recording device `name` over `disk`. What the device `log` held is lost."""
    return f'{_DMSETUP} create {name} --table "0 $(blockdev --getsz {disk}) log-writes {disk} {log}"'


def put_mark(name: str, text: str) -> str:
    """Return the shell line that puts a mark into the log: one word, of which the kernel keeps 479 bytes."""
    if not _MARK.fullmatch(text):
        raise ValueError(f"mark {text!r}: the kernel takes one word")
    return f"{_DMSETUP} message {name} 0 mark {text}"


def stop_logging(name: str) -> str:
    """Return the shell line that takes the device away; what no flush had come for is then logged as well."""
    return f"{_DMSETUP} remove {name}"


def read_log(path: Path) -> Log:
    """Read the image of a log disk. Raises `LabError` when it is none or breaks off."""
    with path.open("rb") as image:
        magic, version, count, unit = _unpack(_SUPERBLOCK, image.read(_SUPERBLOCK.size), path)
        if (magic, version) != (_MAGIC, 1):
            raise LabError(f"{path} holds no log of dm-log-writes.")
        entries = []
        position = unit
        for _ in range(count):
            image.seek(position)
            sector, sectors, bits, text = _unpack(_ENTRY, image.read(_ENTRY.size), path)
            flags = Flag(bits)
            mark = image.read(text).decode() if Flag.MARK in flags else ""
            position += unit
            entries.append(Entry(sector * unit, sectors * unit, flags, position, mark))
            if Flag.DISCARD not in flags:
                position += sectors * unit
    if position > path.stat().st_size:
        raise LabError(f"{path}: the log is longer than its disk.")
    return Log(path, tuple(entries))


def _unpack(layout: struct.Struct, data: bytes, path: Path) -> tuple[int, ...]:
    if len(data) < layout.size:
        raise LabError(f"{path}: the log breaks off.")
    return layout.unpack(data)


def moment_of(log: Log, mark: str) -> int:
    """Return the moment just after a mark was made."""
    for number, entry in enumerate(log.entries):
        if Flag.MARK in entry.flags and entry.mark == mark:
            return number + 1
    raise LabError(f"{log.path}: the log has no mark {mark}.")


def marks_before(log: Log, moment: int) -> list[str]:
    """Return the texts of the marks made before a moment, in order: what came before them had been done."""
    return [entry.mark for entry in log.entries[:moment] if Flag.MARK in entry.flags]


def moments(log: Log, count: int, *, seed: int, after: str = "", before: str = "") -> list[int]:
    """Choose moments spread evenly over the log, the very beginning and the end among them; in order.

    after, before: the marks between which to choose, both exclusive; else the log's beginning and end.
    """
    first = moment_of(log, after) if after else 0
    last = moment_of(log, before) - 1 if before else len(log.entries)
    if count < 2 or last - first + 1 < count:
        raise LabError(f"{log.path}: {count} moments cannot be chosen from {first} to {last}.")
    chance = random.Random(seed)  # noqa: S311
    inner = count - 2
    edges = [first + 1 + (last - first - 1) * part // inner for part in range(inner + 1)] if inner else []
    return [first, *(chance.randrange(low, high) for low, high in zip(edges, edges[1:])), last]


def moments_of_change(log: Log, count: int, *, seed: int, after: str = "", before: str = "") -> list[int]:
    """Choose moments spread evenly over the stretches between flushes, however few writes one has; in order.

    The very beginning and the end are among them. Where thousands of writes lead to one state and three more to the
    next, `moments` would hardly meet the three.
    after, before: the marks between which to choose, both exclusive; else the log's beginning and end.
    """
    first = moment_of(log, after) if after else 0
    last = moment_of(log, before) - 1 if before else len(log.entries)
    stretches: list[list[int]] = []
    written: list[int] = []
    for moment, entry in enumerate(log.entries[first:last], first):
        written.append(moment)
        if Flag.FLUSH in entry.flags and any(log.entries[one].length for one in written):
            stretches.append(written)
            written = []
    stretches.append([*written, last])
    if count < 2 or last - first + 1 < count:
        raise LabError(f"{log.path}: {count} moments cannot be chosen from {first} to {last}.")
    chance = random.Random(seed)  # noqa: S311
    stretches[0].remove(first)
    stretches[-1].remove(last)
    for stretch in stretches:
        chance.shuffle(stretch)
    chosen = [first, last]
    while len(chosen) < count:
        left = sorted(filter(None, stretches), key=len)
        chosen += [stretch.pop() for stretch in left[: count - len(chosen)]]
    return sorted(chosen)


def cut(log: Log, moment: int, destination: Path, *, seed: int, base: Path | None = None, size: int = 0) -> Path:
    """Make the image of the disk as a power cut at a moment may have left it; the same for the same seed.

    base: the disk's image from before the log began; else it was blank, of `size` bytes.
    """
    if base:
        run(["cp", "--sparse=auto", "--reflink=auto", base, destination])
    else:
        with destination.open("wb") as blank:
            blank.truncate(size)
    with log.path.open("rb") as source, destination.open("r+b", buffering=0) as disk:
        for entry, there in surviving(log, moment, seed=seed):
            _write(entry, there, source.fileno(), disk.fileno())
    return destination


def surviving(log: Log, moment: int, *, seed: int) -> Iterator[tuple[Entry, tuple[bool, ...] | None]]:
    """Tell in order which writes a power cut at a moment leaves, each with which of its sectors are there; None is all.

    The head of this file says what decides it.
    """
    chance = random.Random(seed * 1_000_003 + moment)  # noqa: S311
    flushed = _last_flush(log, moment)
    for number, entry in enumerate(log.entries[: moment + 1]):
        if not entry.length:
            continue
        durable = number < flushed or (Flag.FUA in entry.flags and number < moment)
        if durable:
            yield entry, None
            continue
        fate = chance.choice(("there", "lost", "torn"))
        if fate == "there":
            yield entry, None
        elif fate == "torn":
            yield entry, tuple(chance.random() < 0.5 for _ in range(entry.length // SECTOR))


def _last_flush(log: Log, moment: int) -> int:
    """Return the number of the last flush that had completed at a moment, or 0: it vouches for none then."""
    return next((number for number in reversed(range(moment)) if Flag.FLUSH in log.entries[number].flags), 0)


def _write(entry: Entry, there: tuple[bool, ...] | None, source: int, disk: int) -> None:
    """Put an entry's data, or those of its sectors that are there, in their place; of a discard, zeros."""
    discarded = Flag.DISCARD in entry.flags
    data = bytes(entry.length) if discarded else os.pread(source, entry.length, entry.payload)
    if there is None:
        os.pwrite(disk, data, entry.start)
        return
    for number, is_there in enumerate(there):
        if is_there:
            offset = number * SECTOR
            os.pwrite(disk, data[offset : offset + SECTOR], entry.start + offset)

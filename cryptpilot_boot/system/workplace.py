"""Directories to work in for a while: private, with room, and letting programs run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN_MEMORY = "/run"
_ON_DISK = "/var/tmp"  # noqa: S108 - a directory of this process's own is made in it
MOUNTS = Path("/proc/self/mountinfo")  # proc(5): the fifth field is the mount point; bind mounts are there as well
_FULL = 1 << 20  # bytes: with less, whatever failed failed for lack of room


@contextlib.contextmanager
def private_directory(needed: int, *, in_memory: bool) -> Iterator[Path]:
    """Give an empty directory for root alone, with `needed` bytes to spare, from which programs can be run.

    It is removed with its content, whatever happens: what is unpacked there holds client keys. in_memory: best in
    memory, where a power cut removes it too; but /run is only a part of the memory, and may be mounted noexec. Then,
    and without in_memory, it is where large files are put for a while: $TMPDIR, by default /var/tmp. Raises
    CryptpilotError that says what is wrong with each place.
    """
    on_disk = Path(os.environ.get("TMPDIR") or _ON_DISK).absolute()
    places = [Path(_IN_MEMORY), on_disk] if in_memory else [on_disk]
    obstacles = [_obstacle(place, needed) for place in places]
    if None not in obstacles:
        found = [one for one in obstacles if one]
        raise CryptpilotError(
            f"no place to work in: {'; '.join(what for what, _ in found)}",
            f"{found[-1][1]}, or name another: TMPDIR=DIRECTORY",
        )
    directory = places[obstacles.index(None)] / f"cryptpilot-{os.urandom(8).hex()}"
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _obstacle(place: Path, needed: int) -> tuple[str, str] | None:
    """Return why `needed` bytes of programs cannot be put into a directory and run there, and the remedy, or None."""
    make = f"make it: mkdir --mode=1777 {place}"
    if not place.exists():
        return f"{place} does not exist", make
    if not place.is_dir():
        return f"{place} is not a directory", f"move it away and {make}"
    flags = os.statvfs(place).f_flag
    if flags & os.ST_RDONLY:
        return f"{place} is mounted read-only", f"mount -o remount,rw {mount_point(place)}"
    if flags & os.ST_NOEXEC:
        return (
            f"{place} is mounted noexec, so nothing can be run there",
            f"for as long as this takes: mount -o remount,exec {mount_point(place)}",
        )
    left = room(place)
    if left < needed:
        return (
            f"{place} has {readable(left)} left, and {readable(needed)} are needed",
            f"make room: {readable(needed - left)} more on {mount_point(place)}",
        )
    return None


def mount_point(path: Path) -> Path:
    """Return the mount point of the file system that holds a path."""
    path = path.resolve()
    points = {Path(_unescaped(line.split()[4])) for line in MOUNTS.read_text().splitlines()}
    return next((one for one in (path, *path.parents) if one in points), Path("/"))


def _unescaped(text: str) -> str:
    """Undo how the kernel writes blanks and the like in a path: as a backslash and three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def room(place: str | Path) -> int:
    """Return the bytes a file system has left for root."""
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize


def require_room_left(doing: str, *places: Path) -> None:
    """Raise CryptpilotError if something has failed that filled a place: whatever it says itself is no help then."""
    for place in places:
        if room(place) < _FULL:
            point = mount_point(place)
            raise CryptpilotError(
                f"{point} became full while {doing}", f"make room on {point}, or work elsewhere: TMPDIR=DIRECTORY"
            )


def is_writable(directory: Path) -> bool:
    """Tell whether files can be made in a directory: root can, but on a file system that is read-only."""
    return os.access(directory, os.W_OK)

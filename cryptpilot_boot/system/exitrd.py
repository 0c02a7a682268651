"""What the machine is turned off with: systemd's program for it, kept in memory from the initrd that runs.

At the end systemd cannot close what its own root is on. It goes over to /run/initramfs if there is an executable
"shutdown", which then unmounts the old root and closes what that was on; see systemd's "Initrd interface". dracut would
unpack the image from /boot there at that time, while volumes are open: any other image than the one that was measured.

Uses: mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from cryptpilot_boot import paths
from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system import private
from cryptpilot_boot.system.run import run

PLACE = Path("/run/initramfs")
_SHUTDOWN = "shutdown"
_UNFINISHED = "shutdown.new"
# dracut-shutdown.service and dracut-initramfs-restore take its being there for an image that is unpacked already, and
# do nothing then, even if another program created .need_shutdown.
_MARK = "bin/sh"
_IN_INITRD = "etc/initrd-release"  # tells the program that it runs from here already, and must not switch again
_SPARE = 2  # times its size that must be free: other programs need /run too


def claim(place: Path = PLACE) -> None:
    """Keep dracut from unpacking any image at shutdown, from now on. Raises CryptpilotError."""
    try:
        _empty(place / _MARK)
    except OSError as error:
        raise CryptpilotError(f"{place / _MARK} cannot be made: {error.strerror}") from None


def keep(place: Path = PLACE, files: Path = paths.SHUTDOWN_FILES, root: Path = Path("/")) -> None:
    """Copy what a list names below `place`, all or nothing. Without a list, nothing would run it.

    files: the list, one path a line: the program first, then its libraries. The dracut module writes it. Raises
    CryptpilotError: volumes that the root is on then stay open until the power is off.
    """
    if not files.exists():
        return
    listed = [Path(line) for line in files.read_text().splitlines()]
    copies = {place / path.relative_to("/"): root / path.relative_to("/") for path in listed[1:]}
    copies[place / _UNFINISHED] = root / listed[0].relative_to("/")
    try:
        private.directory(place, private.PUBLIC_DIRECTORY)
        _require_room(place, sum(source.stat().st_size for source in copies.values()))
        _let_run(place)
        for copy, source in copies.items():
            private.directory(copy.parent, private.PUBLIC_DIRECTORY)
            shutil.copyfile(source, copy)
            copy.chmod(0o755)
        _empty(place / _IN_INITRD)
        (place / _UNFINISHED).replace(place / _SHUTDOWN)
    except (OSError, ProgramError) as error:
        for copy in copies:
            with contextlib.suppress(OSError):  # why one cannot be removed is why it could not be made
                copy.unlink()
        why = error.what if isinstance(error, ProgramError) else f"{error.filename or place}: {error.strerror}"
        raise CryptpilotError(f"the programs for the shutdown cannot be kept in {place}: {why}") from None


def _require_room(place: Path, size: int) -> None:
    state = os.statvfs(place)
    free = state.f_bavail * state.f_frsize
    if free < _SPARE * size:
        raise ProgramError(f"it takes {size} bytes, and {free} are free there")


def _let_run(place: Path) -> None:
    """Let programs be run there alone, where nothing in /run may be: dracut's own scripts mount it so."""
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        # also when what was at work has been ended at the deadline
        run(["mount", "--rbind", str(place), str(place)], finish=True)
        run(["mount", "-o", "remount,bind,exec,nosuid,nodev", str(place)], finish=True)


def _empty(path: Path) -> None:
    private.directory(path.parent, private.PUBLIC_DIRECTORY)
    private.write(path, "", private.PUBLIC_FILE)

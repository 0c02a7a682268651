"""Labels of SELinux for what was put into another system's root.

They are extended attributes, which root can write on a machine without SELinux too. The other system's own program
puts them there, by its own policy.

Uses, in there: setfiles (policycoreutils).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptpilot_boot.system import private

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.system.foreign_root import Root

_LIST = "/run/cryptpilot-labels"


def changed(top: Path, since: float) -> tuple[list[str], list[str]]:
    """Return what was made or written to since a time below a directory, and what is mounted there.

    The first are files, and directories in which nothing is older, which may be `top` itself. since: seconds since
    1970, by the clock of the file system. A file system that is mounted below is left out.
    """
    device = top.lstat().st_dev
    order, mounts = [str(top)], []
    parents: dict[str, str] = {}
    new = {str(top): top.lstat().st_ctime >= since}
    files: dict[str, list[str]] = {}
    for directory in order:  # it grows
        with os.scandir(directory) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                fresh = status.st_ctime >= since
                if status.st_dev != device:
                    mounts.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    order.append(entry.path)
                    parents[entry.path], new[entry.path] = directory, fresh
                elif fresh:
                    files.setdefault(directory, []).append(entry.path)
                else:
                    new[directory] = False
    for directory in reversed(order):  # each before the one it is in
        if not new[directory] and directory in parents:
            new[parents[directory]] = False
    found = [one for one in order if new[one] and not new.get(parents.get(one, ""), False)]
    found += [path for one, paths in files.items() if not new[one] for path in paths]
    return sorted(found), sorted(mounts)


def label(root: Root, directory: str, since: float, contexts: str) -> None:
    """Label the files that were made or changed since a time, in a root that is `furnished`.

    directory: where a file system of it is mounted in there; no other one is looked into. contexts: the path of the
    policy's file_contexts. Raises ProgramError.
    """
    paths, mounts = changed(root.path / directory.lstrip("/"), since)
    if not paths:
        return
    listing = root.path / _LIST.lstrip("/")
    private.write(listing, "".join(f"{_inside(root, path)}\0" for path in paths))
    excluded = [word for path in mounts for word in ("-e", _inside(root, path))]
    root.run(["setfiles", *excluded, "-0", "-f", _LIST, contexts])
    listing.unlink()


def _inside(root: Root, path: str) -> str:
    """Return a path of this system as one of that root."""
    return path[len(str(root.path)) :] or "/"

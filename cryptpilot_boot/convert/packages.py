"""Packages that are installed into an image: what it lacks, and cryptpilot's own in place of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.convert import requirements
from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import foreign_tools

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.system.foreign_root import Root


def require_files(paths: Sequence[Path]) -> None:
    """Raise CryptpilotError unless these are files, all of one kind of package that is known."""
    known = " and ".join(foreign_tools.PACKAGE_COMMANDS)
    for path in paths:
        if not path.is_file():
            raise CryptpilotError(f"{path}: no such file", "--package takes a file")
        if path.suffix not in foreign_tools.PACKAGE_COMMANDS:
            raise CryptpilotError(f"{path} has no name of a package", f"{known} are known")
    if len({path.suffix for path in paths}) > 1:
        raise CryptpilotError("packages of two kinds are given", "give those of the image's distribution")
    if len({path.name for path in paths}) < len(paths):
        raise CryptpilotError("two packages of one name are given", "give each once")


def install(root: Root, paths: Sequence[Path], volume: Volume) -> None:
    """Have a root's own programs install packages in it, and see that it then has what it takes.

    The root is `furnished`. Raises CryptpilotError.
    """
    foreign_tools.install_packages(root, paths)
    for path, hint in requirements.packaged(volume).items():
        if not root.has(path):
            raise refused(f"it has no {path}, even with the given packages", hint)

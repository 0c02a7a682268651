"""What the programs of another system are run for, in its own root.

Uses, in there: systemctl, cryptpilot with dracut, grub-mkconfig, grub-editenv, cp (coreutils); here: cp (coreutils),
find (findutils).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.system.mounts import MORTAL
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.system.foreign_root import Root


def enable(root: Root, unit: str) -> None:
    """Have systemd start a unit there at boot. Raises ProgramError."""
    root.run(["systemctl", "enable", unit])


def rebuild_images(root: Root) -> None:
    """Have dracut make the initrds of all kernels again, for any machine; one that would not do its work fails.

    Raises ProgramError.
    """
    root.run(["/usr/bin/cryptpilot", "initrd", "rebuild", "--all", "--", "--no-hostonly"])


def make_boot_configuration(root: Root, program: str, path: str) -> None:
    """Have GRUB's configuration written to a file there. program: grub-mkconfig's path. Raises ProgramError."""
    root.run([program, "-o", path])


def set_variable(root: Root, program: str, path: str, name: str, value: str) -> None:
    """Set a variable in an environment block of GRUB's there. program: grub-editenv's path. Raises ProgramError."""
    root.run([program, path, "set", f"{name}={value}"])


def copy_file(root: Root, source: str, target: str) -> None:
    """Have a file there take another one's place. Raises ProgramError."""
    root.run(["cp", "--remove-destination", "--", source, target])


def move_content(source: Path, target: Path) -> None:
    """Move what is in a directory to another one, on another file system. Raises ProgramError."""
    run([*MORTAL, "cp", "--archive", f"{source}/.", str(target)])
    run([*MORTAL, "find", str(source), "-xdev", "-mindepth", "1", "-delete"])

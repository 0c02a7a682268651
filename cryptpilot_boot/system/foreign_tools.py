"""What the programs of another system are run for, in its own root.

Uses, in there: systemctl, cryptpilot with dracut, grub-mkconfig, grub-editenv, cp (coreutils), apt-get or rpm; here:
cp, sync (coreutils), find (findutils).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cryptpilot_boot.system.mounts import MORTAL
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptpilot_boot.system.foreign_root import Root


PACKAGE_COMMANDS = {
    # apt, because it removes conflicting packages, such as initramfs-tools; configured packages stay
    ".deb": (
        *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--no-install-recommends"),
        # nothing else is known to it: of the same version it could take a repository's. Not --no-download, with which
        # apt 2.6 finds no file that is given
        *("-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/dev/null"),
        *("-o", "APT::Sandbox::User=root", "-o", "Dpkg::Options::=--force-confold", "install"),
    ),
    ".rpm": ("rpm", "--upgrade", "--replacepkgs"),
}
"""What installs packages, by how their files' names end; source: apt-get(8), dpkg(1), rpm(8)."""
_PACKAGES = "/run/cryptpilot-packages"  # in memory


def enable(root: Root, unit: str) -> None:
    """Enable a unit there: systemd starts it at boot. Raises ProgramError."""
    root.run(["systemctl", "enable", unit])


def rebuild_images(root: Root) -> None:
    """Let dracut rebuild the initrds of all kernels, for any machine; one that would not work is an error.

    Raises ProgramError.
    """
    root.run(["/usr/bin/cryptpilot", "initrd", "rebuild", "--all", "--", "--no-hostonly"])


def install_packages(root: Root, packages: Sequence[Path]) -> None:
    """Install packages there, all of one kind, without a network. Raises ProgramError."""
    directory = root.path / _PACKAGES.lstrip("/")
    directory.mkdir(mode=0o755)
    for path in packages:
        shutil.copyfile(path, directory / path.name)
    command = PACKAGE_COMMANDS[packages[0].suffix]
    root.run([*command, *(f"{_PACKAGES}/{path.name}" for path in packages)])
    shutil.rmtree(directory)


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


def flush(mounted: Path) -> None:
    """Have all that was written to a file system on its device. Raises ProgramError when that did not take all of it.

    Unmounting it would not say so. Before Linux 5.8 this does not either; see syncfs(2).
    """
    run([*MORTAL, "sync", "--file-system", str(mounted)])

"""What all packages are made of: a tree with everything in its place, and the facts about it. Uses: git."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib import layout, manifest
from buildlib.base import ROOT, BuildError, digest_of_file, run
from buildlib.distribute import licenses

if TYPE_CHECKING:
    from collections.abc import Iterator

LICENSES = "usr/share/licenses/cryptpilot"
# The machine that an ELF file is for, e_machine in its header, as RPM and as Debian call it.
_MACHINES = {62: ("x86_64", "amd64"), 183: ("aarch64", "arm64")}
_E_MACHINE = slice(18, 20)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a package says of itself.

    epoch: the time of the commit, in seconds. rpm_machine, deb_machine: its architecture. libraries: those it needs
    of the system; least: the versions of their symbols, by kind, such as {"GLIBC": "2.28"}.
    """

    version: str
    release: str
    epoch: int
    rpm_machine: str
    deb_machine: str
    libraries: tuple[str, ...]
    least: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a program whose output is to hold no other time than the commit's."""
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(self.epoch)}


def commit(checkout: Path = ROOT) -> int:
    """Return the time of the commit that is checked out. Raises BuildError where there are changes beside it."""
    hint = "a package is made from a commit: run it in a git checkout"
    changed = run(["git", "-C", checkout, "status", "--porcelain"], hint=hint).rstrip()
    if changed:
        raise BuildError(
            f"no package is made from a checkout that is not as it was committed:\n{changed}",
            "commit, or remove what is new",
        )
    return int(run(["git", "-C", checkout, "log", "-1", "--format=%ct"], hint=hint))


def facts(bundle: Path, release: str, epoch: int) -> Facts:
    """Return the facts about a bundle. Raises BuildError when it is damaged or for an unknown machine."""
    if not release.isdecimal() or int(release) < 1:
        raise BuildError(f'"{release}" is no release of a package', "give a whole number from 1 on, such as 2")
    table = manifest.require_sound(bundle)
    number = int.from_bytes((bundle / "cryptpilot").read_bytes()[_E_MACHINE], "little")
    if number not in _MACHINES:
        raise BuildError(f"{bundle / 'cryptpilot'} is for a machine that packages are not made for (ELF {number})")
    libraries = tuple(table["system_libraries"])
    return Facts(table["version"], release, epoch, *_MACHINES[number], libraries, dict(table["minimum_versions"]))


@contextlib.contextmanager
def staged(bundle: Path, environment: Path, about: Facts) -> Iterator[Path]:
    """Lay everything out in a directory that exists as long as this does. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="cryptpilot-package-") as name:
        root = Path(name, "root")
        layout.install(bundle, root, Path("/usr"))
        licenses.copy_own(root / LICENSES)
        licenses.collect(bundle, environment, root / LICENSES)
        settle(root, about.epoch)
        yield root


def settle(root: Path, epoch: int) -> None:
    """Give files and directories the time of the commit, and what was put beside the layout the usual modes."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink() and root / LICENSES in (path, *path.parents):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    root.chmod(0o755)


def described(path: Path) -> str:
    """Return a line on a finished package."""
    return f"{path}  ({path.stat().st_size / (1 << 20):.1f} MiB)  sha256 {digest_of_file(path)}"

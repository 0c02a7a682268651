"""The RPM. Uses: rpmbuild."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib.base import ROOT, BuildError, run

if TYPE_CHECKING:
    from buildlib.distribute.stage import Facts

SPEC = "packaging/cryptpilot.spec"
# Which of the system's libraries has the symbols of a kind.
_HOLDERS = {"GLIBC": "libc.so.6", "ZLIB": "libz.so.1"}


def file_name(about: Facts) -> str:
    """Return the name of the package's file."""
    return f"cryptpilot-{about.version}-{about.release}.{about.rpm_machine}.rpm"


def libraries(about: Facts) -> str:
    """Return what is required of the system's libraries, as RPM's own generator would have it."""
    loaders = [name for name in about.libraries if not name.startswith("ld-")]
    needed = [f"{name}()(64bit)" for name in loaders]
    needed += [
        f"{_HOLDERS[kind]}({kind}_{version})(64bit)" for kind, version in about.least.items() if kind in _HOLDERS
    ]
    return ", ".join(sorted(needed))


def build(stage: Path, about: Facts, output: Path, checkout: Path = ROOT) -> Path:
    """Make the package of a staged tree below `output`. Raises BuildError."""
    if not shutil.which("rpmbuild"):
        raise BuildError(
            "rpmbuild is missing, which makes the RPM", "install it: apt-get install rpm, dnf install rpm-build"
        )
    with tempfile.TemporaryDirectory(prefix="cryptpilot-rpm-") as name:
        top = Path(name)
        defined = {
            "_topdir": top,
            "_tmppath": top / "tmp",
            "_rpmdir": top,
            "_rpmfilename": file_name(about),
            "cp_version": about.version,
            "cp_release": about.release,
            "cp_stage": stage,
            "cp_libraries": libraries(about),
        }
        words = [word for key, value in defined.items() for word in ("--define", f"{key} {value}")]
        run(
            ["rpmbuild", "-bb", "--quiet", f"--target={about.rpm_machine}-linux", *words, checkout / SPEC],
            env={**about.environment, "HOME": name},
        )
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(str(top / file_name(about)), str(output / file_name(about))))

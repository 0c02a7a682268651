"""The packages of the frozen bundle, in two releases, made once for all tests of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib.base import ROOT, digest_of_file
from buildlib.distribute import deb, rpm, stage
from tests.lab.cache import cached, fingerprint
from tests.lab.run import run

if TYPE_CHECKING:
    from types import ModuleType

BUNDLE = ROOT / "build/dist/cryptpilot"
_EPOCH = 1_750_000_000
_SOURCES = (
    *("buildlib/distribute", "completions", "docs", "dracut", "etc", "examples", "initrd_hooks", "man"),
    *("packaging", "systemd", "udev"),
)


def _package(kind: ModuleType, release: str) -> Path:
    """Return a package of a release, made as `make packages` does, but without asking for a commit."""
    parts = [digest_of_file(BUNDLE / "manifest.json"), digest_of_file(ROOT / "buildlib/layout.py"), release]
    parts += [fingerprint(ROOT / name) for name in _SOURCES]
    about = stage.facts(BUNDLE, release, _EPOCH)

    def make(path: Path) -> None:
        path.mkdir()
        environment = Path(run([sys.executable, ROOT / "build.py", "venv", "build"]).strip())
        with stage.staged(BUNDLE, environment, about) as root:
            kind.build(root, about, path)

    place = cached(f"package-{kind.__name__.rpartition('.')[2]}-{release}", parts, make)
    return place / str(kind.file_name(about))


def rpm_of(release: str) -> Path:
    """Return the RPM of a release."""
    return _package(rpm, release)


def deb_of(release: str) -> Path:
    """Return the DEB of a release."""
    return _package(deb, release)

"""Virtual environments made from lock files, and kept.

Uses: the venv module (Debian: package python3-venv) and the pip it installs.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from buildlib.base import ROOT, BuildError, cache_directory, digest, locked, newest_first, note, run

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from buildlib.python import Python

# Which locks are installed together.
LOCK_SETS = {
    "build": ("agent", "build"),
    "dev": ("agent", "build", "dev"),
    "sdk": ("sdk",),
    "audit": ("audit",),
    "compiler": ("compiler",),
}

# Source archives are built with these, and by this pip. They go in first: pip's own way would fetch them again for each
# build, of any version and without a hash.
_BUILDERS = frozenset({"flit-core", "packaging", "pip", "setuptools", "wheel"})

# What pip says of all it has installed: from which file each package came, with its hash.
INSTALLED = "installed.json"
# Changes when environments are made in another way from the same locks.
_RECIPE = b"2"

# Another checkout may just be using the one before.
_KEPT = 2


def locks(name: str) -> list[Path]:
    """Return the lock files of a set."""
    return [ROOT / "requirements" / f"{lock}.lock" for lock in LOCK_SETS[name]]


def environment(name: str, python: Python) -> Path:
    """Return the environment of a lock set, made now if it is missing.

    An environment holds absolute paths, so it is made where it stays; the stamp written last says that it is whole.
    """
    texts = [lock.read_text() for lock in locks(name)]
    key = digest([_RECIPE, str(python.path).encode(), python.build.encode(), *(text.encode() for text in texts)])
    cache = cache_directory()
    place = cache / f"venv-{name}-{key[:16]}"
    stamp = place / "complete"
    with locked(cache / f"venv-{name}.lock"):
        if not stamp.exists():
            shutil.rmtree(place, ignore_errors=True)
            _make(place, python, name, texts)
        stamp.touch()
        others = [other for other in cache.glob(f"venv-{name}-*") if other != place]
        for other in newest_first(others)[_KEPT - 1 :]:
            shutil.rmtree(other, ignore_errors=True)
    return place


def _make(place: Path, python: Python, name: str, texts: list[str]) -> None:
    note(f"making the {name} environment with Python {python.version}")
    run(
        [python.path, "-m", "venv", place],
        hint=f"{python.path} needs its venv and ensurepip modules; Debian has them in the package python3-venv",
    )
    builders = place / "builders.txt"
    builders.write_text("".join(entries(text, _BUILDERS) for text in texts))
    if builders.read_text():
        _install(place, [builders])
    _install(place, locks(name), f"--report={place / INSTALLED}")


def _install(place: Path, requirements: list[Path], *options: str) -> None:
    run(
        [
            place / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--no-build-isolation",
            "--use-pep517",
            *options,
            *(f"--requirement={path}" for path in requirements),
        ],
        hint="pip fetches what the lock files name: see whether this machine reaches its package index",
    )


def entries(text: str, names: Collection[str]) -> str:
    """Return the entries of some packages from a lock's text, hashes and all."""
    found = re.findall(r"^[a-z0-9][^\n]*(?:\n[ \t][^\n]*)*\n?", text, re.MULTILINE)
    return "".join(entry for entry in found if re.split(r"[=; ]", entry, maxsplit=1)[0] in names)


def require_locks(name: str) -> None:
    """Raise BuildError unless the locks of a set are there."""
    for lock in locks(name):
        if not lock.is_file():
            raise BuildError(f"{lock.relative_to(ROOT)} is missing", "make it: build.py lock")

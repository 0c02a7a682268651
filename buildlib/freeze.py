"""Freezing the agent into a bundle: a directory that runs where there is no Python.

Uses: PyInstaller, and the binutils (strip, objcopy) it calls; the stand-in gateway of tests/kms.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib import elf, interpreter, manifest, sbom, venv
from buildlib.base import (
    ROOT,
    BuildError,
    cache_directory,
    digest,
    digest_of_file,
    lay_out,
    locked,
    newest_first,
    note,
    run,
)

if TYPE_CHECKING:
    from buildlib.python import Python

NAME = "cryptpilot"
# Beside the bundle: checksums as sha256sum takes them. That of the manifest is the bundle's, as the manifest has those
# of all its files.
DIGESTS = f"{NAME}.sha256"
_DIGESTED = (f"{NAME}/{manifest.MANIFEST}", sbom.name(NAME))

# Where PyInstaller's bootloader has the loader search for libraries.
_LIBRARY_DIRECTORY = "_internal"
_KEPT = 4

# What PyInstaller gets to know of the environment it is started in; what comes out depends on none of it.
_FROM_OUTSIDE = ("LD_LIBRARY_PATH", "PATH", "TMPDIR")
# The same everywhere and each time. What comes out holds no time, so the epoch is nothing but a time that is always
# the same for whatever wants to know one.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(ROOT),
    # An initrd is compressed as a whole, which does better on modules that are not compressed one by one.
    "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0",
    "SOURCE_DATE_EPOCH": "1704067200",  # 2024-01-01
    "TZ": "UTC",
}


def sources() -> list[Path]:
    """Return the files of the checkout that decide what is in a bundle."""
    return [
        *sorted((ROOT / "cryptpilot_boot").rglob("*.py")),
        *sorted((ROOT / "buildlib").glob("*.py")),
        *sorted((ROOT / "buildlib").glob("*.spec")),
        *venv.locks("build"),
        *venv.locks("compiler"),
    ]


def origin(python: Python) -> manifest.Origin:
    """Say what a bundle made now would be made from."""
    parts = [part for path in sources() for part in (str(path.relative_to(ROOT)).encode(), path.read_bytes())]
    parts.append(interpreter.key().encode())
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "cryptpilot_boot/__init__.py").read_text(), re.MULTILINE)
    if version is None:
        raise BuildError('cryptpilot_boot/__init__.py has no line __version__ = "..."')
    return manifest.Origin(version[1], python.version, digest([python.build.encode(), *parts]))


def cached(wanted: manifest.Origin) -> Path:
    """Return where a finished bundle of this origin is kept, if there is one."""
    return cache_directory() / f"bundle-{wanted.inputs[:16]}" / NAME


def is_current(bundle: Path, wanted: manifest.Origin) -> bool:
    """Tell whether a bundle is there, whole, with what belongs beside it, and made from just this."""
    try:
        return (
            manifest.load(bundle)["inputs"] == wanted.inputs
            and not manifest.differences(bundle)
            and (bundle.parent / DIGESTS).read_text() == _digests(bundle.parent)
        )
    except (BuildError, OSError):
        return False


def lay_out_all(bundle: Path, output: Path) -> None:
    """Copy a finished bundle, and what belongs beside it, to where somebody wants to have it."""
    lay_out(bundle, output)
    for name in (*(name for name in _DIGESTED if "/" not in name), DIGESTS):
        shutil.copy(bundle.parent / name, output.parent / name)


def _digests(directory: Path) -> str:
    return "".join(f"{digest_of_file(directory / name)}  {name}\n" for name in _DIGESTED)


def freeze(python: Python) -> Path:
    """Freeze, exercise and examine; return the finished bundle in the cache.

    Runs within the build environment. Raises BuildError when the bundle would not work everywhere.
    """
    wanted = origin(python)
    bundle = cached(wanted)
    cache = cache_directory()
    with locked(cache / "bundle.lock"):
        if not is_current(bundle, wanted):
            for leftover in cache.glob("freezing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="freezing-", dir=cache) as name:
                _finish(_pyinstaller(Path(name)), Path(name, "work"), wanted)
                shutil.rmtree(bundle.parent, ignore_errors=True)
                Path(name, "dist").replace(bundle.parent)
        os.utime(bundle.parent)
        for older in newest_first(cache.glob("bundle-*/"))[_KEPT:]:
            shutil.rmtree(older, ignore_errors=True)
    return bundle


def _pyinstaller(workplace: Path) -> Path:
    note("freezing the agent")
    run(
        [
            sys.executable,
            "-m",
            "PyInstaller",
            "--noconfirm",
            "--log-level=WARN",
            f"--distpath={workplace / 'dist'}",
            f"--workpath={workplace / 'work'}",
            ROOT / "buildlib/agent.spec",
        ],
        env={
            **{name: os.environ[name] for name in _FROM_OUTSIDE if name in os.environ},
            **_ENVIRONMENT,
            "PYINSTALLER_CONFIG_DIR": str(workplace / "config"),
        },
        hint="PyInstaller needs strip and objcopy (package binutils)",
    )
    return workplace / "dist" / NAME


def _finish(bundle: Path, work: Path, wanted: manifest.Origin) -> None:
    """Turn what PyInstaller leaves into a bundle that is known to work. work: PyInstaller's notes."""
    from buildlib.exercise import PROBE, exercise

    _settle_modes(bundle)
    note("running it against a stand-in gateway")
    note(f"it works; importing everything takes {exercise(bundle):.2f} s of processor time")
    for path in bundle.glob(f"{PROBE}*"):
        path.unlink()
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    elves = [found for path in files if (found := elf.read(path, str(path.relative_to(bundle))))]
    elf.require_closed(elves, _LIBRARY_DIRECTORY)
    elf.require_floor(elves)
    manifest.write(bundle, wanted, elves)
    sbom.write(sbom.beside(bundle), bundle, work, Path(sys.prefix, venv.INSTALLED), elves)
    (bundle.parent / DIGESTS).write_text(_digests(bundle.parent))
    (bundle.parent / DIGESTS).chmod(0o644)


def _settle_modes(bundle: Path) -> None:
    """Give everything the mode it will have when installed, whatever the umask: programs alone are executable."""
    programs = {path.with_suffix("") for path in bundle.glob("*.pkg")}
    bundle.chmod(0o755)
    for path in bundle.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path in programs else 0o644)

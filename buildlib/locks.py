"""Making the lock files. Uses: uv."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib import python, venv
from buildlib.base import ROOT, BuildError, digest_of_file, run

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# Each with what it must agree with: they are installed together.
_LOCKS = {
    "agent": [],
    "build": ["agent"],
    "dev": ["agent", "build"],
    "sdk": [],
    "audit": [],
    "compiler": [],
}

# The SDK asks for protobuf < 3.21 for its generated code, which newer ones still run when they are plain Python. Those
# have known vulnerabilities.
_OVERRIDES = """\
protobuf>=6.33.5
"""
# Imported by the SDK at the top of modules, for calls never made here: tea.py, kms_sdk.py and kms_openapi.py have
# empty modules in their place.
_EXCLUDES = """\
aiohttp
cryptography
pyopenssl
"""
# Their wheels hold compiled modules for some Pythons and not for others. Compiled ones cost bytes, gain nothing on the
# little these packages do here, and hide what they import from PyInstaller.
_PURE = ("charset-normalizer", "tomli")
# Of these pip would take a wheel that is compiled for the build machine, so the lock names another one alone: protobuf
# is to be plain Python, which its source archive does not give.
_WHEELS = {"protobuf": ("--implementation=py", "--platform=any")}

_OPTIONS = {
    "agent": [
        "--overrides=overrides.txt",
        "--excludes=excludes.txt",
        *(f"--no-binary={name}" for name in _PURE),
        "--emit-build-options",
    ],
}

# What the checks run with on Debian 12; what is frozen is newer.
_OLDEST = "3.11.2"

# A lock is for everybody: it says what, not from where.
_PLACE = re.compile(r"://|^\s*(-i|-f|--(extra-)?index-url|--find-links)\b|(^|\s)/|\s@\s", re.MULTILINE)


def make(*, upgrade: bool) -> list[Path]:
    """Make all lock files again and return them. upgrade: do not keep the versions they name now."""
    with tempfile.TemporaryDirectory(prefix=".lock-", dir=ROOT) as name:
        workplace = Path(name)
        shutil.copytree(ROOT / "requirements", workplace / "requirements")
        (workplace / "overrides.txt").write_text(_OVERRIDES)
        (workplace / "excludes.txt").write_text(_EXCLUDES)
        for lock in _LOCKS:
            _compile(workplace, lock, upgrade=upgrade)
        # all or none
        return [(workplace / _path(lock)).replace(ROOT / _path(lock)) for lock in _LOCKS]


def _path(lock: str) -> str:
    return f"requirements/{lock}.lock"


def _compile(workplace: Path, lock: str, *, upgrade: bool) -> None:
    run(
        [
            _uv(),
            "pip",
            "compile",
            "--quiet",
            "--universal",
            f"--python-version={_OLDEST}",
            "--no-python-downloads",
            f"--python={python.chosen().path}",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--custom-compile-command=make lock",
            *(["--upgrade"] if upgrade else []),
            *_OPTIONS.get(lock, []),
            *(f"--constraints={_path(other)}" for other in _LOCKS[lock]),
            f"--output-file={_path(lock)}",
            f"requirements/{lock}.in",
        ],
        cwd=workplace,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
        hint="uv asks a package index: see whether this machine reaches it",
    )
    if lock == "agent":
        for name in _WHEELS:
            _keep_wheels(workplace, lock, name)
    if names_a_place((workplace / _path(lock)).read_text()):
        raise BuildError(f"{_path(lock)} would name a place to fetch from", f"look at requirements/{lock}.in")


def _keep_wheels(workplace: Path, lock: str, name: str) -> None:
    """Of a package's hashes keep those of the wheels in `_WHEELS`, so that pip takes no other file."""
    path = workplace / _path(lock)
    text = path.read_text()
    for version in re.findall(rf"^{name}==([\w.]+)", text, re.MULTILINE):
        requirement = f"{name}=={version}"
        kept = {digest_of_file(_wheel(workplace / "wheels", requirement, _WHEELS[name]))}
        text = with_hashes_alone(text, requirement, kept)
    path.write_text(text)


def _wheel(directory: Path, requirement: str, options: Sequence[str]) -> Path:
    venv.require_locks("dev")
    run(
        [
            venv.environment("dev", python.chosen()) / "bin/python",
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--ignore-requires-python",
            *options,
            f"--dest={directory}",
            requirement,
        ],
        hint="pip asks a package index: see whether this machine reaches it",
    )
    (wheel,) = directory.glob(f"{requirement.replace('==', '-')}-*.whl")
    return wheel


def with_hashes_alone(text: str, requirement: str, kept: Collection[str]) -> str:
    """Return a lock's text with no other hashes for a requirement than these. Raises BuildError if one is not there."""
    lines = [f"    --hash=sha256:{sha256}" for sha256 in sorted(kept)]
    entry = re.search(rf"^{re.escape(requirement)} [^\n]*\n(?: +--hash=[^\n]+\n)+", text, re.MULTILINE)
    if entry is None or not all(line in entry[0] for line in lines):
        raise BuildError(
            f"{requirement} with the hashes {', '.join(sorted(kept))} is not in the lock", "run build.py lock once more"
        )
    return text.replace(entry[0], " \\\n".join([entry[0].split("\n")[0].removesuffix(" \\"), *lines]) + "\n")


def names_a_place(text: str) -> bool:
    """Tell whether a lock's text names a host, an index or a path."""
    return bool(_PLACE.search(text))


def _uv() -> Path:
    """Find uv: in PATH, or in the development environment."""
    program = shutil.which("uv")
    if program:
        return Path(program)
    venv.require_locks("dev")
    return venv.environment("dev", python.chosen()) / "bin/uv"

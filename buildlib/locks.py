"""Making the lock files. Uses: uv."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from buildlib import python, venv
from buildlib.base import ROOT, BuildError, run

# Each with what it must agree with: they are installed together.
_LOCKS = {
    "agent": [],
    "build": ["agent"],
    "dev": ["agent", "build"],
    "sdk": [],
}

# The SDK asks for cryptography < 42 and pyOpenSSL < 23.3, which have known vulnerabilities, for a function we do
# without; its generated code needs protobuf < 3.21.
_OVERRIDES = """\
cryptography>=45
protobuf<3.21
"""
# Imported by the SDK at the top of modules, for calls never made here: keys/kms_sdk.py has empty modules in their
# place.
_EXCLUDES = """\
aiohttp
pyopenssl
"""
# Their wheels hold compiled modules for some Pythons and not for others. Compiled ones cost bytes, gain nothing on the
# little these packages do here, and hide what they import from PyInstaller.
_PURE = ("charset-normalizer", "protobuf", "tomli")

_OPTIONS = {
    "agent": [
        "--overrides=overrides.txt",
        "--excludes=excludes.txt",
        *(f"--no-binary={name}" for name in _PURE),
        "--emit-build-options",
    ],
}

# A lock is for everybody: it says what, not from where.
_PLACE = re.compile(r"://|^\s*(-i|-f|--(extra-)?index-url|--find-links)\b|(^|\s)/|\s@\s", re.MULTILINE)


def make(*, upgrade: bool) -> list[Path]:
    """Make all lock files anew and return them. upgrade: do not keep the versions they name now."""
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
            "--python-version=3.9",
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
    if names_a_place((workplace / _path(lock)).read_text()):
        raise BuildError(f"{_path(lock)} would name a place to fetch from", f"look at requirements/{lock}.in")


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

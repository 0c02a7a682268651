"""Pythons: asking one what it is. The one that is frozen is made by buildlib/interpreter.py."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import sys
from pathlib import Path

from buildlib.base import BuildError, run

# Asked of the interpreter itself: it need not be the one that runs build.py. In an environment it names the
# interpreter the environment was made from.
_QUESTION = """
import json, os, platform, sys
print(json.dumps({
    "path": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "version": platform.python_version(),
    "build": sys.version,
}))
"""


@dataclasses.dataclass(frozen=True)
class Python:
    """An interpreter. version: "3.11.2"; build: all it says about itself."""

    path: Path
    version: str
    build: str


@functools.lru_cache
def chosen() -> Python:
    """Return the Python named by PYTHON in the environment, or else the one that runs this."""
    name = os.environ.get("PYTHON") or sys.executable
    program = shutil.which(name)
    if program is None:
        raise BuildError(f"PYTHON={name}: no such program", "name the Python to build with, such as PYTHON=python3")
    return asked(Path(program))


@functools.lru_cache
def asked(program: Path) -> Python:
    """Return what a Python says of itself."""
    told = json.loads(run([program, "-I", "-c", _QUESTION], hint=f"{program} must be a Python from 3.9 on"))
    return Python(path=Path(told.pop("path")), **told)

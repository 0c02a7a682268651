"""The Python that freezes the agent, and that ends up in it."""

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
# interpreter the environment was made from. The libraries are those its extension modules bring into the process:
# a bundle holds copies of them, so it is out of date when one of them changes. Debian 11's Python calls /usr/lib its
# LIBDIR and keeps the shared library in the directory of the architecture below.
_QUESTION = """
import importlib, json, os, pathlib, platform, sys, sysconfig
for name in ("ctypes", "hashlib", "pyexpat", "ssl", "zlib"):
    importlib.import_module(name)
var = lambda name: sysconfig.get_config_var(name) or ""
candidates = [pathlib.Path(var("LIBDIR"), directory, var("INSTSONAME")) for directory in ("", var("MULTIARCH"))]
libpython = next((path for path in candidates if path.is_file()), candidates[0])
mapped = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count("/") and ".so" in line}
print(json.dumps({
    "path": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "version": platform.python_version(),
    "build": sys.version,
    "shared": bool(sysconfig.get_config_var("Py_ENABLE_SHARED")) and libpython.is_file(),
    "libraries": sorted(mapped | {str(libpython)}),
}))
"""


@dataclasses.dataclass(frozen=True)
class Python:
    """An interpreter. version: "3.11.2"; build: all it says about itself; libraries: what a bundle copies of it."""

    path: Path
    version: str
    build: str
    shared: bool
    libraries: tuple[Path, ...]


@functools.lru_cache
def chosen() -> Python:
    """Return the Python named by PYTHON in the environment, or else the one that runs this."""
    name = os.environ.get("PYTHON") or sys.executable
    program = shutil.which(name)
    if program is None:
        raise BuildError(f"PYTHON={name}: no such program", "name the Python to build with, such as PYTHON=python3")
    told = json.loads(run([program, "-I", "-c", _QUESTION], hint=f"PYTHON={name} must be a Python from 3.9 on"))
    libraries = tuple(Path(path) for path in told.pop("libraries"))
    return Python(path=Path(told.pop("path")), libraries=libraries, **told)


def require_shared_library(python: Python) -> None:
    """Raise BuildError unless this Python exists as a shared library: the bundle starts that, not the program."""
    if python.shared:
        return
    release = ".".join(python.version.split(".")[:2])
    raise BuildError(
        f"{python.path} (Python {python.version}) has no shared library, which the frozen agent needs",
        f"install it: libpython{release} on Debian, python3-libs on Fedora and its kin; or name another Python, such"
        " as PYTHON=/usr/bin/python3",
    )

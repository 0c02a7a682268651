"""The Python that is frozen: compiled from source for the oldest glibc there is to start on, and kept.

Uses: the compiler of buildlib/compiler.py and make. With its libraries it takes some five minutes of one processor.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from buildlib import compiler, libraries, python, sources
from buildlib.base import ROOT, BuildError, digest, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from buildlib.python import Python

_RELEASE = ".".join(sources.PYTHON.version.split(".")[:2])

# Modules that the agent always loads: as parts of the library they are there at once. Of the others each is a file.
_BUILT_IN = [
    "array",
    "_asyncio",
    "_bisect",
    "_contextvars",
    "_datetime",
    "_heapq",
    "_json",
    "_opcode",
    "_posixsubprocess",
    "_queue",
    "_random",
    "_socket",
    "_struct",
    "binascii",
    "fcntl",
    "grp",
    "math",
    "mmap",
    "resource",
    "select",
    "termios",
    "zlib",
]

# Modules that take long to compile, and that nothing here uses.
_LEFT_OUT = [
    "_codecs_cn",
    "_codecs_hk",
    "_codecs_iso2022",
    "_codecs_jp",
    "_codecs_kr",
    "_codecs_tw",
    "_decimal",
    "_interpchannels",
    "_interpqueues",
    "_interpreters",
    "_lsprof",
    "_multibytecodec",
    "_statistics",
    "_zoneinfo",
    "cmath",
]

# glibc before 2.30 waits for a semaphore only by the wall clock. The initrd sets that clock: a wait of 20 s would
# end at once then, or take months. Condition variables can use the monotonic clock. Without sem_timedwait CPython
# waits for those; its parking lot uses the wall clock there too, which this changes.
_STEADY_WAITS = [
    ('#include "pycore_semaphore.h"', '#include "condvar.h"\n#include "pycore_semaphore.h"'),
    ("pthread_cond_init(&sema->cond, NULL)", "_PyThread_cond_init(&sema->cond)"),
    ("PyTime_TimeRaw(&now)", "PyTime_MonotonicRaw(&now)"),
]

# Left out of the standard library, for nothing that builds or is frozen uses it.
_LIBRARY_WITHOUT = ("__pycache__", "test", "idlelib", "tkinter", "turtledemo", "lib2to3", "pydoc_data")


def interpreter() -> Python:
    """Return the interpreter, compiled now unless that is done already. Raises BuildError."""
    place = compiler.compiled("python", key(), (sources.PYTHON,), _make)
    return python.asked(place / f"bin/python{_RELEASE}")


def key() -> str:
    """Return a digest of all that decides what the interpreter is."""
    recipe = (ROOT / "buildlib/interpreter.py").read_bytes()
    return digest([libraries.key().encode(), recipe, repr(sources.PYTHON).encode()])


def _make(work: Path, env: Mapping[str, str]) -> Path:
    source, out = work / sources.PYTHON.directory, work / "python"
    stage = libraries.libraries()
    lib, include = stage / "lib", stage / "include"
    listed = (source / "Modules/Setup.stdlib.in").read_text()
    (source / "Modules/Setup.local").write_text(built_in(listed, _BUILT_IN))
    _change(source / "Python/parking_lot.c", _STEADY_WAITS)
    settings = {
        **env,
        # the library calls its own functions, which nothing replaces from outside
        "CFLAGS": "-fno-semantic-interposition",
        "OPT": "-DNDEBUG -O3 -Wall",
        **{f"py_cv_module_{name}": "n/a" for name in _LEFT_OUT},
        "LD_LIBRARY_PATH": str(lib),
        "SEARCH": "yes",
        # What this machine has is not for the target.
        "PKG_CONFIG": "false",
        "LIBFFI_CFLAGS": f"-I{include}",
        "LIBFFI_LIBS": f"-L{lib} -lffi",
        "ZLIB_CFLAGS": f"-I{include}",
        "ZLIB_LIBS": f"-L{lib} -lz",
        # configure would have to run a program with a name server to know
        "ac_cv_buggy_getaddrinfo": "no",
        # see _STEADY_WAITS
        "ac_cv_func_sem_timedwait": "no",
    }
    options = [
        "--prefix=/",
        "--enable-shared",
        "--disable-test-modules",
        "--without-doc-strings",
        "--without-ensurepip",
        "--without-readline",
        "--without-static-libpython",
        f"--with-openssl={stage}",
    ]
    run(["./configure", *options], cwd=source, env=settings)
    # the linker knows the option under this name alone; libpython3.so is for modules that are not made here
    _change(source / "Makefile", [("-Wl,-h$", "-Wl,-soname,$"), ("PY3LIBRARY=", "PY3LIBRARY= #")])
    run(["make", "all"], cwd=source, env=settings)
    run(["make", "altbininstall", "sharedinstall", f"DESTDIR={out}"], cwd=source, env=settings)
    library = out / f"lib/python{_RELEASE}"
    shutil.copytree(source / "Lib", library, ignore=shutil.ignore_patterns(*_LIBRARY_WITHOUT), dirs_exist_ok=True)
    (settled,) = source.glob("build/lib.*/_sysconfigdata_*.py")
    shutil.copy(settled, library)
    for name in ("libcrypto.so.3", "libssl.so.3"):
        shutil.copy(lib / name, out / "lib")
    return out


def _change(path: Path, changes: Sequence[tuple[str, str]]) -> None:
    """Put a text in the place of another one, wherever that is in a file. Raises BuildError if it is not there."""
    text = path.read_text()
    for old, new in changes:
        if old not in text:
            raise BuildError(f"{path.name} of this Python has no {old!r}", "see buildlib/interpreter.py")
        text = text.replace(old, new)
    path.write_text(text)


def built_in(listed: str, names: Sequence[str]) -> str:
    """Return the Setup file that makes modules parts of the library. listed: CPython's own file, which has them all."""
    rules = {name: rule for rule, name in re.findall(r"^@\w+@((\w+) .*)$", listed, re.MULTILINE)}
    missing = [name for name in names if name not in rules]
    if missing:
        raise BuildError(
            f"this Python has no modules {', '.join(missing)} in C", "see _BUILT_IN in buildlib/interpreter.py"
        )
    return "\n".join(["*static*", *(rules[name] for name in names), ""])

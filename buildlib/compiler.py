"""The C compiler of the interpreter: Clang as `zig cc`, which brings the glibc of any version to link with.

Uses: the package ziglang of the Python index, pinned by requirements/compiler.lock.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib import elf, python, sources, venv
from buildlib.base import ROOT, BuildError, cache_directory, digest, locked, newest_first, note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from buildlib.sources import Source

_KEPT = 2

TARGETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
"""What the compiler calls the machines that it compiles for, by what the kernel calls them."""

# Without it, an overflow that C leaves undefined would end the program.
_FLAGS = ("-O2", "-g0", "-fno-sanitize=undefined", "-Wno-date-time", "-Qunused-arguments")
# Where a program of the interpreter, and a module of it, look for libraries: the same in a bundle. One place each: see
# elf.faults.
_PROGRAM_SEARCHES = "-Wl,-rpath,$ORIGIN/../lib"
_LIBRARY_SEARCHES = "-Wl,-rpath,$ORIGIN/../.."


def machine() -> str:
    """Return what the kernel calls this machine. Raises BuildError when there is nothing to compile for it with."""
    name = platform.machine()
    if name not in TARGETS:
        raise BuildError(f"{name}: no such machine to build on", f"build on one of these: {', '.join(TARGETS)}")
    return name


def target() -> str:
    """Return what to compile for: this machine, and the glibc of the floor."""
    return f"{TARGETS[machine()]}.{elf.FLOOR['GLIBC']}"


def key() -> str:
    """Return a digest of the compiler, and of what it compiles for."""
    parts = [path.read_bytes() for path in [ROOT / "buildlib/compiler.py", *venv.locks("compiler")]]
    return digest([target().encode(), *parts])


def compiled(name: str, key: str, wanted: Sequence[Source], make: Callable[[Path, Mapping[str, str]], Path]) -> Path:
    """Return a directory that `make` made of source archives, from the cache if it is there. Raises BuildError.

    name: of what is made; key: digest of all that decides what comes out. make: is given a directory with the archives
    unpacked and the environment to compile in; returns the directory below that is to be kept.
    """
    cache = cache_directory()
    place = cache / f"{name}-{key[:16]}"
    with locked(cache / f"{name}.lock"):
        if not place.exists():
            for leftover in cache.glob(f"compiling-{name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f"compiling-{name}-", dir=cache) as directory:
                _make(Path(directory), wanted, make).rename(place)
        os.utime(place)
        others = [other for other in cache.glob(f"{name}-*/") if other != place]
        for other in newest_first(others)[_KEPT - 1 :]:
            shutil.rmtree(other, ignore_errors=True)
    return place


def _make(work: Path, wanted: Sequence[Source], make: Callable[[Path, Mapping[str, str]], Path]) -> Path:
    archives = sources.fetched(wanted)
    names = ", ".join(f"{source.name} {source.version}" for source in wanted)
    note(f"compiling {names} for {target()}: this takes minutes, once")
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(work)  # noqa: S202 - its checksum is known
    return make(work, environment(work))


def environment(work: Path) -> Mapping[str, str]:
    """Write the compiler's programs into `work`/bin; return the environment in which `cc`, `ar`, `ranlib` are these.

    No path of this machine gets into what they make.
    """
    venv.require_locks("compiler")
    (zig,) = venv.environment("compiler", python.chosen()).glob("lib/python3*/site-packages/ziglang/zig")
    place = work / "bin"
    place.mkdir()
    cc: list[str | Path] = [zig, "cc", "-target", target(), *_FLAGS, f"-ffile-prefix-map={work}=."]
    _write(
        place / "cc",
        f"""case " $* " in
    *" -shared "*) search='{_LIBRARY_SEARCHES}' ;;
    *) search='{_PROGRAM_SEARCHES}' ;;
esac
exec {_quoted(cc)} ${{SEARCH:+"$search"}} "$@"
""",
    )
    for name in ("ar", "ranlib"):
        _write(place / name, f'exec {_quoted([zig, name])} "$@"\n')
    return {
        "PATH": f"{place}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(work),
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": "1704067200",  # 2024-01-01
        "CC": "cc",
        "AR": "ar",
        "RANLIB": "ranlib",
        "ZIG_GLOBAL_CACHE_DIR": str(work / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(work / "zig"),
        "MAKEFLAGS": f"-j{len(os.sched_getaffinity(0))}",
    }


def _quoted(words: Sequence[str | Path]) -> str:
    return shlex.join(map(str, words))


def _write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)

"""Proving that a bundle starts where it goes: every library its ELF files need is in it, or is on every target.

`read` gathers facts with pyelftools; all else is a pure function of such facts.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from typing import TYPE_CHECKING

from buildlib.base import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from elftools.elf.dynamic import DynamicTag
    from elftools.elf.elffile import ELFFile

FLOOR = {"GCC": "4.2.0", "GLIBC": "2.28", "ZLIB": "1.2.9"}
"""The highest version that a bundle may need of each kind of system library: what the oldest system it is for has.

That is Enterprise Linux 8: glibc 2.28, zlib 1.2.11, libgcc_s of GCC 8. The interpreter is compiled for this glibc."""

# What a target has for sure, so that no bundle may carry it: the C library with all its parts, which a process must
# not mix; libgcc_s, which belongs to it (glibc loads it to end a thread, and its packages require it); and zlib, which
# the launcher (PyInstaller's bootloader) is linked with and needs before it can look into the bundle.
SYSTEM_LIBRARIES = frozenset(
    {
        "ld-linux-aarch64.so.1",
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "librt.so.1",
        "libutil.so.1",
        "libz.so.1",
    }
)
# No file needs these by name: glibc loads them, the first to end a thread, the others up to version 2.33 to look up a
# host name.
LOADED_LIBRARIES = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")

# glibc marks with this word what uses packed relocations, which its loader knows from this version on.
_MARKS = {"GLIBC_ABI_DT_RELR": "GLIBC_2.36"}
_VERSION = re.compile(r"([A-Za-z]+)_([0-9]+(?:\.[0-9]+)*)")


@dataclasses.dataclass(frozen=True)
class Elf:
    """What is known of one ELF file of a bundle.

    path: within the bundle. needed: file names of libraries. interpreter: the program loader a program asks for, ""
    for a library. search: directories of its own to search, "$ORIGIN" as it stands. versions: of symbols it needs,
    as (library, version).
    """

    path: str
    needed: tuple[str, ...]
    interpreter: str = ""
    search: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()


def read(file: Path, path: str) -> Elf | None:
    """Read the facts of a file that is `path` within the bundle; None when it is no ELF file."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with file.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return None
        try:
            return _facts(ELFFile(stream), path)
        except ELFError as error:
            raise BuildError(f"{path} is a damaged ELF file: {error}") from None


def _facts(elf: ELFFile, path: str) -> Elf:
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.gnuversions import GNUVerNeedSection
    from elftools.elf.segments import InterpSegment

    tags = [tag for part in elf.iter_segments() if isinstance(part, DynamicSegment) for tag in part.iter_tags()]
    search = _values(tags, "rpath") + _values(tags, "runpath")
    needs = [
        (str(library.name), version.name)
        for section in elf.iter_sections()
        if isinstance(section, GNUVerNeedSection)
        for library, versions in section.iter_versions()
        for version in versions
    ]
    interpreters = [part.get_interp_name() for part in elf.iter_segments() if isinstance(part, InterpSegment)]
    return Elf(
        path=path,
        needed=tuple(_values(tags, "needed")),
        interpreter="".join(interpreters),
        search=tuple(directory for text in search for directory in text.split(":")),
        versions=tuple(sorted(needs)),
    )


def _values(tags: Iterable[DynamicTag], kind: str) -> list[str]:
    """Return the texts of the dynamic tags of a kind; pyelftools names the attribute after the tag."""
    return [getattr(tag, kind) for tag in tags if tag.entry.d_tag == f"DT_{kind.upper()}"]


def faults(elves: Sequence[Elf], library_directory: str) -> list[str]:
    """Say of each library that will not be found which file needs it, and of each that must not be there.

    A search path with $ORIGIN in it twice is one, too: dracut-install 112 corrupts its memory over it, and no image is
    made.

    library_directory: where the launcher has the loader search, within the bundle; for all but programs, which are
    loaded before the launcher runs.
    """
    bundled = {elf.path for elf in elves}
    found = [
        f"{elf.path} needs {library}, which is neither in the bundle nor a library that every target has"
        for elf in elves
        for library in elf.needed
        if library not in SYSTEM_LIBRARIES and not bundled & set(_places(elf, library, library_directory))
    ]
    found += [
        f"{elf.path} is a library of the system, which the bundle must not bring along"
        for elf in elves
        if posixpath.basename(elf.path) in SYSTEM_LIBRARIES
    ]
    found += [
        f"{elf.path} has $ORIGIN in its search path more than once, which ends dracut-install 112"
        for elf in elves
        if sum(directory.count("ORIGIN") for directory in elf.search) > 1
    ]
    return found


def _places(elf: Elf, library: str, library_directory: str) -> Iterable[str]:
    origin = posixpath.dirname(elf.path)
    for directory in elf.search:
        if "$ORIGIN" in directory or "${ORIGIN}" in directory:
            relative = directory.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin or ".")
            yield posixpath.normpath(posixpath.join(relative, library))
    if not elf.interpreter:
        yield posixpath.normpath(posixpath.join(library_directory, library))


def require_closed(elves: Sequence[Elf], library_directory: str) -> None:
    """Raise BuildError with all `faults`, if there are any."""
    found = faults(elves, library_directory)
    if found:
        raise BuildError(
            "the bundle would not start everywhere:\n  " + "\n  ".join(found),
            "install what is missing on the build machine, or leave out the module that needs it (EXCLUDED in"
            " buildlib/agent.spec); SYSTEM_LIBRARIES in buildlib/elf.py is for what every target has",
        )


def system_libraries(elves: Iterable[Elf]) -> list[str]:
    """Return the libraries of the system that the bundle needs, sorted."""
    return sorted({library for elf in elves for library in elf.needed} & SYSTEM_LIBRARIES)


def minimum_versions(elves: Iterable[Elf]) -> dict[str, str]:
    """Return the highest symbol version needed of each system library's kind, such as {"GLIBC": "2.35"}.

    Raises BuildError for what only the very same build of a library has.
    """
    highest: dict[str, tuple[int, ...]] = {}
    for elf in elves:
        for library, version in elf.versions:
            if library not in SYSTEM_LIBRARIES:
                continue
            match = _VERSION.fullmatch(_MARKS.get(version, version))
            if match is None:
                raise BuildError(
                    f"{elf.path} needs {version} of {library}, which another build of that library need not have",
                    f"build on a system where {elf.path} uses public interfaces only",
                )
            number = _number(match[2])
            highest[match[1]] = max(number, highest.get(match[1], ()))
    return {kind: ".".join(map(str, number)) for kind, number in sorted(highest.items())}


def above_floor(elves: Iterable[Elf]) -> list[str]:
    """Say of each file which version it needs of a system library that is above `FLOOR`, or of no kind there."""
    return [
        f"{one.path} needs {kind} {version}, and the floor is {FLOOR.get(kind, 'none of it')}"
        for one in elves
        for kind, version in minimum_versions([one]).items()
        if kind not in FLOOR or _number(version) > _number(FLOOR[kind])
    ]


def require_floor(elves: Sequence[Elf]) -> None:
    """Raise BuildError with all that is `above_floor`, if there is any."""
    found = above_floor(elves)
    if found:
        raise BuildError(
            "the bundle would not start on the oldest system it is for:\n  " + "\n  ".join(found),
            "a library of this machine came along, or a package's wheel is for newer systems: requirements/agent.lock"
            " must name wheels for manylinux of the floor, or older; FLOOR is in buildlib/elf.py",
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

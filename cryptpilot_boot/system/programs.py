"""Programs: where they are, and why one cannot be run."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from cryptpilot_boot.errors import ProgramError, printable

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a program is looked for that is named without a slash, whatever PATH this process has."""

_BINARY_FORMATS = Path("/proc/sys/fs/binfmt_misc")
_FIRST = 4096  # bytes that tell what a file is
_ELF = b"\x7fELF"
_LOADER = 3  # PT_INTERP, <elf.h>
# Of the header, <elf.h>: its bytes, up to what machine it is for; EI_CLASS and EI_DATA, with ELFCLASS64 and
# ELFDATA2LSB; e_machine with both, as uname(1) calls it.
_HEADER = 20
_CLASS, _WIDE = 4, 2
_DATA, _LITTLE = 5, 1
_MACHINES = {
    (62, 64, True): "x86_64",
    (3, 32, True): "i686",
    (183, 64, True): "aarch64",
    (40, 32, True): "armv7l",
    (243, 64, True): "riscv64",
    (258, 64, True): "loongarch64",
    (21, 64, True): "ppc64le",
    (22, 64, False): "s390x",
}
_UTF8_MARK = b"\xef\xbb\xbf"


def is_there(program: str) -> bool:
    """Tell whether there is a program to run."""
    return bool(located(program))


def located(program: str) -> str:
    """Return the path of a program to run, "" without one."""
    return next((path for path in _paths(program) if os.access(path, os.X_OK) and not Path(path).is_dir()), "")


def machine(path: Path) -> str:
    """Return the processor of an ELF file, by its name in uname(1) if known; "" for another file.

    Raises OSError.
    """
    with path.open("rb") as file:
        first = file.read(_HEADER)
    if len(first) < _HEADER or not first.startswith(_ELF):
        return ""
    bits, little = 64 if first[_CLASS] == _WIDE else 32, first[_DATA] == _LITTLE
    (number,) = struct.unpack_from("<H" if little else ">H", first, 18)
    return _MACHINES.get((number, bits, little)) or f"ELF machine {number} ({bits} bits)"


def find(program: str) -> str:
    """Return the path of a program, which is named as in a shell: with a slash it is a path already.

    Raises ProgramError without one that can be run.
    """
    path = located(program)
    if path:
        return path
    raise fault(program) or ProgramError(f"{program}: program not found", f"install {program}")


def fault(program: str, formats: Path = _BINARY_FORMATS) -> ProgramError | None:
    """Find out why a program cannot be run; None when nothing speaks against it.

    program: as `find` takes it. formats: where the kernel lists what else it runs. The kernel's own answer names the
    file that was to be run even where it is another that is missing: the interpreter in its first line, or the loader
    of an ELF file.
    """
    there = [path for path in _paths(program) if os.path.lexists(path)]
    if not there:
        return _missing(program)
    path = located(program) or there[0]
    try:
        status = os.stat(path)  # noqa: PTH116 - not to be confused with its own stat module
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            return ProgramError(f"{path} is {kind}, and no program", "name the program")
        if not status.st_mode & 0o111:
            return ProgramError(f"{path} is not executable", f"chmod 755 {path}")
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            return ProgramError(
                f"{path} is on a file system that is mounted noexec",
                f"put it elsewhere, or see how it is mounted: findmnt --target {path}",
            )
        if not os.access(path, os.X_OK):
            return ProgramError(f"{path} must not be executed by this user", "run this as root")
        with Path(path).open("rb") as file:
            return _fault_within(path, file.read(_FIRST), formats)
    except PermissionError:
        return None  # a user may run it without being allowed to read it
    except OSError as error:
        return ProgramError(f"{path} cannot be run: {error.strerror}", f"see what it is: ls -l {path}")


def refused(program: str, path: str, error: OSError) -> ProgramError:
    """Say why the kernel did not run a program."""
    return fault(program) or ProgramError(f"{program} cannot be run: {error.strerror}", f"see what it is: ls -l {path}")


def _paths(program: str) -> list[str]:
    return [program] if "/" in program else [f"{directory}/{program}" for directory in PATH.split(":")]


def _missing(program: str) -> ProgramError:
    first, blank, _ = program.partition(" ")
    if blank and Path(first).is_file():
        return ProgramError(
            f"there is no file of the whole name that begins with {first}, but {first} is one:"
            " arguments do not belong into command",
            f'arguments go into args: command = "{first}", and args = ["...", "..."] with a string for each',
        )
    where = "" if "/" in program else f" in {PATH}"
    return ProgramError(f"{program}: program not found{where}", f"install {program}")


def _fault_within(path: str, first: bytes, formats: Path) -> ProgramError | None:
    """Find out why the kernel cannot run a file that is executable. first: the bytes that it begins with."""
    if first.startswith(_ELF):
        loader = _loader(first)
        if loader and not Path(loader).exists():
            return ProgramError(
                f"{path} needs the loader {printable(loader)}, which is missing",
                "install the C library that it was made for, or take a program made for this system",
            )
        return None
    if first.startswith(b"#!"):
        return _fault_of_script(path, first)
    if first.removeprefix(_UTF8_MARK).startswith(b"#!"):
        return ProgramError(
            f"{path} begins with a byte-order mark, so that the kernel does not see its #! line",
            f"remove it: sed -i '1s/^\\xef\\xbb\\xbf//' {path}",
        )
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ProgramError(f"{path} is UTF-16 text, which no interpreter reads", "save it as UTF-8")
    if _are_other_formats(formats):
        return None
    what = "is empty" if not first else "is neither an ELF file nor a script that begins with #!"
    return ProgramError(f"{path} {what}", "begin it with the line #!/bin/sh, or name the program that runs it")


def _fault_of_script(path: str, first: bytes) -> ProgramError | None:
    line, end, _ = first[2:].partition(b"\n")
    words = os.fsdecode(line).split()
    if line.endswith(b"\r"):
        reads = f'its interpreter is "{_shown(line)}", which is missing' if len(words) == 1 else "nothing can run it"
        return ProgramError(
            f"{path} has lines that end in CR LF, so that {reads}",
            f"convert its line ends: sed -i 's/\\r$//' {path}",
        )
    if not words or not end:
        return None if words else ProgramError(f"{path} names no interpreter in its first line", "such as #!/bin/sh")
    interpreter = words[0]
    if not Path("/", interpreter).exists():
        return ProgramError(
            f"{path} is run by {printable(interpreter)}, as its first line says, which is missing",
            f"install {printable(interpreter)}, or change the first line",
        )
    # env(1) looks for the word that comes next
    by_env = words[1] if Path(interpreter).name == "env" and len(words) > 1 else ""
    if by_env and not by_env.startswith("-") and "=" not in by_env and not is_there(by_env):
        return ProgramError(
            f"{path} is run by {printable(by_env)}, as its first line says, which is not found in {PATH}",
            f"install {printable(by_env)}, or change the first line",
        )
    return None


def _shown(line: bytes) -> str:
    """Return a script's first line in a form that shows the carriage return at its end."""
    return printable(os.fsdecode(line.rstrip(b"\r")).strip()) + "\\r"


def _loader(first: bytes) -> str:
    """Return the path of the loader that an ELF file names, "" if it names none, or in a way that is not known."""
    wide, little = first[4:5] == b"\x02", first[5:6] == b"\x01"
    order = "<" if little else ">"
    try:
        if wide:
            (table,) = struct.unpack_from(f"{order}Q", first, 32)
            size, count = struct.unpack_from(f"{order}HH", first, 54)
        else:
            (table,) = struct.unpack_from(f"{order}I", first, 28)
            size, count = struct.unpack_from(f"{order}HH", first, 42)
        for number in range(count):
            entry = table + number * size
            (kind,) = struct.unpack_from(f"{order}I", first, entry)
            if kind == _LOADER:
                offset = struct.unpack_from(f"{order}Q" if wide else f"{order}I", first, entry + (8 if wide else 4))[0]
                return os.fsdecode(first[offset:].split(b"\0", 1)[0])
    except (struct.error, OverflowError):
        pass  # its tables are not in the usual place: the kernel decides
    return ""


def _are_other_formats(directory: Path) -> bool:
    """Tell whether a kernel was taught other formats, such as those of another processor; see binfmt_misc."""
    try:
        return any(path.name not in ("register", "status") for path in directory.iterdir())
    except OSError:
        return False

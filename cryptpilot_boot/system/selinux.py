"""SELinux: a program can open the files in memory that it is given, and work in the directory that it is given.

The policy gives a program such as cryptsetup its own domain, which may use the files that it makes and few others. A
file without a name has the label of the process that made it. Then the kernel closes the descriptor in the program, or
does not let it open the file again. The program only says that the file is "not compatible". So such a file gets the
label that a file would have which the program made in /run. What that is, the policy is asked: no type is named here. A
directory to work in gets the label that it would have in a place which the policy has for the program's work.

Source: security/selinux/selinuxfs.c of Linux, for the files below /sys/fs/selinux.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

POLICY = Path("/sys/fs/selinux")
OWN = Path("/proc/thread-self/attr/current")
_RUN = Path("/run")
_ATTRIBUTE = "security.selinux"
_NEEDED = ("getattr", "lock", "open", "read", "write")  # what cryptsetup does with the file of a header
_CONTENT = ("dir", "file", "lnk_file")  # what there is in a directory to work in, by the policy's names


def share(program: str, descriptor: int) -> None:
    """Label a file in memory so that a program that inherits it may open it.

    program: its path. Nothing is changed without SELinux, or if the program may open the file as it is.
    """
    if not (POLICY / "create").exists():
        return
    # Without leave to ask or to label, the file stays as it is: if that will not do, the program fails, and the kernel
    # logs why.
    with contextlib.suppress(OSError):
        domain = _ask("create", _own(), _label(program), "process")
        if not _may_open(domain, _label(descriptor)):
            label = _ask("create", domain, _label(_RUN), "file")
            if _may_open(domain, label):
                os.setxattr(descriptor, _ATTRIBUTE, label.encode() + b"\0")


def share_directory(program: str, directory: Path, model: Path) -> None:
    """Label an empty directory so that a program may do with what this process puts there all that it may in another.

    program: its path. model: a directory that the policy has for the program's work. Nothing is changed without
    SELinux, or if the program may do all that already.
    """
    if not (POLICY / "create").exists():
        return
    with contextlib.suppress(OSError):  # as above
        own = _own()
        domain = _ask("create", own, _label(program), "process")
        now, label = _label(directory), _ask("create", own, _label(model), "dir")
        if any(_below(own, label, domain, kind) & ~_below(own, now, domain, kind) for kind in _CONTENT):
            os.setxattr(directory, _ATTRIBUTE, label.encode() + b"\0")


def _own() -> str:
    return OWN.read_text().rstrip("\0\n")


def _label(file: str | Path | int) -> str:
    return os.getxattr(file, _ATTRIBUTE).decode().rstrip("\0")


def _may_open(domain: str, label: str) -> bool:
    """Tell whether a domain may use a file of this label by its name. Raises OSError."""
    allowed = _allowed(domain, label, "file")
    numbers = (int((POLICY / "class/file/perms" / name).read_text()) for name in _NEEDED)
    return all(allowed >> (number - 1) & 1 for number in numbers)


def _below(own: str, directory: str, domain: str, kind: str) -> int:
    """Return what a domain may do with an object that `own` makes in a directory of this label. Raises OSError."""
    return _allowed(domain, _ask("create", own, directory, kind), kind)


def _allowed(domain: str, label: str, kind: str) -> int:
    """Return what a domain may do with an object: a bit for each of the policy's permissions. Raises OSError."""
    return int(_ask("access", domain, label, kind).split()[0], 16)


def _ask(question: str, source: str, target: str, kind: str) -> str:
    """Ask the kernel's policy: "create" for a new object's label, "access" for what is allowed, in hexadecimal.

    kind: the object's class. Raises OSError when there is no answer.
    """
    number = (POLICY / "class" / kind / "index").read_text()
    descriptor = os.open(POLICY / question, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"{source} {target} {number}".encode())
        return os.read(descriptor, os.sysconf("SC_PAGE_SIZE")).decode().rstrip("\0")
    finally:
        os.close(descriptor)

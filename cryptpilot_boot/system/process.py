"""What this process does about its own memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import time
from pathlib import Path

from cryptpilot_boot.errors import CryptpilotError

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
# <linux/mman.h>: MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT
_MCL_ALL_AS_TOUCHED = 1 | 2 | 4


def keep_memory_private() -> None:
    """Prevent core dumps of this process and its children, and access by unprivileged processes.

    A limit of 0 bytes does not count where core dumps go to a program, as to systemd-coredump, but 1 does: the
    kernel takes it for "none" (see core(5) and fs/coredump.c), and to a file not even a header fits into it.
    Children inherit the limit; that this process is not dumpable they do not.
    """
    with contextlib.suppress(ValueError):  # the limit is 0 already and only root may raise it
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def keep_files_private() -> None:
    """Make files of this process unreadable and unwritable for others, unless their mode is given and set.

    The programs that it runs have another umask, see `system.run`.
    """
    os.umask(0o077)


def lock_memory() -> None:
    """Have nothing this process holds, now or later, written to swap: no copy of a secret, in a library or not.

    Pages are locked when they are first touched (MCL_ONFAULT, from Linux 4.4 on). Without that the kernel would back
    all that is merely reserved at once, such as 8 MiB of stack for each thread: megabytes of memory for every volume,
    in an initrd that has few. So the memory in use stays what it was, and may not be swapped. Children do not inherit
    it. Raises CryptpilotError when it is refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_ALL_AS_TOUCHED) != 0:
        code = ctypes.get_errno()
        raise CryptpilotError(
            f"this process's memory cannot be kept out of swap: mlockall: {os.strerror(code)}",
            "it needs Linux 4.4 or newer" if code == errno.EINVAL else "run this as root, or raise ulimit -l",
        )


def peak_memory() -> int:
    """Return the most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_seconds() -> float:
    """Return the processor time this process has taken so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def anonymous_file(name: str, content: bytes) -> str:
    """Put `content` into a file of this process alone, for a library that needs a path; it ends with the process."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{descriptor}"


def age() -> float:
    """Return the seconds since this process was started, by the kernel's account; see proc_pid_stat(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started

"""What this process does about its own memory."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from pathlib import Path

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def keep_memory_private() -> None:
    """Have no core dump made of this process, and no unprivileged process look into it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def peak_memory() -> int:
    """Return the most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_seconds() -> float:
    """Return the processor time this process has taken so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def anonymous_file(name: str, content: bytes) -> str:
    """Put `content` where only this process finds it, for a library that wants a path; it ends with the process."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{descriptor}"


def age() -> float:
    """Return the seconds since this process was started, by the kernel's account; see proc_pid_stat(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started

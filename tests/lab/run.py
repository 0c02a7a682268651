"""Running programs: every process of the lab starts and ends here.

Each one is made the leader of its own session, so that it can be killed with all its children and nothing else,
and is told to die when the test run dies, so that not even ``kill -9`` of pytest leaves a machine behind.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Argument = Union[str, "Path"]
Stream = Union[int, IO[bytes], None]

PACKAGES = {
    "linux.uml": "user-mode-linux",
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "swtpm": "swtpm",
    "dnsmasq": "dnsmasq-base",
    "mkfs.ext4": "e2fsprogs",
    "sfdisk": "fdisk",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "modprobe": "kmod",
    "halt": "systemd-sysv",
}
"""The programs the lab runs on the host, and the Debian packages they come in."""


class LabError(Exception):
    """The lab itself cannot go on: what failed, then what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)


def missing_programs() -> list[str]:
    """Return the Debian packages to install before the lab can work; empty when there are none."""
    return sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})


def spawn(
    argv: Sequence[Argument],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that dies with the calling thread; `end` it when done.

    ``setpriv --pdeathsig`` keeps the process number, so the returned object's pid is the program's own.
    """
    if shutil.which(str(argv[0])) is None:
        package = PACKAGES.get(str(argv[0]), "")
        raise LabError(f"{argv[0]} is not installed.", hint=f"apt-get install {package}" if package else "")
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *map(str, argv)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def mean_default_signals() -> None:
    """Have all that this process starts begin with every signal as a program at a terminal has it.

    A script that runs the tests in the background has SIGINT ignored, nohup(1) SIGHUP; what is ignored stays so in a
    program that is started, and what has a handler does not. This process itself goes on ignoring the signal.
    """
    for number in signal.valid_signals():
        # subprocess sees to those that Python ignores itself
        if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


@contextlib.contextmanager
def started(argv: Sequence[Argument], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program that is killed, if need be, at the end of a ``with`` statement; options: those of Popen."""
    process: subprocess.Popen[Any] = subprocess.Popen([str(word) for word in argv], **options)
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
        process.wait()


def contained(argv: Sequence[Argument], *namespaces: str) -> list[Argument]:
    """Return the command line that runs a program in a process namespace of its own.

    To be used with `spawn` for a program whose children outlive it, or that changes its credentials, at which
    the kernel forgets that it was to die with its parent: when the namespace's first process dies, all do.
    `namespaces` are further options of ``unshare``, in which the process that `spawn` returns is then as well.
    """
    keep = ["sh", "-c", '"$@"; exit $?', "sh"]
    return ["unshare", "--pid", "--fork", "--kill-child", *namespaces, "--", *keep, *argv]


def is_running(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has not ended yet. It is not reaped: its number stays its own until `end`."""
    if process.returncode is not None:
        return False
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what `spawn` started with everything in its process group, and reap it.

    Does nothing once it was reaped: the group's number may by then be another's.
    """
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(
    argv: Sequence[Argument],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> str:
    """Run a program to its end and return its standard output; `LabError` shows everything when it fails."""
    process = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    ending = ""
    try:
        out, err = process.communicate(stdin.encode(), timeout=timeout)
    except subprocess.TimeoutExpired:
        ending = f"was still running after {timeout:g} s"
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    finally:
        end(process)
    ending = ending or (f"ended with status {process.returncode}" if process.returncode else "")
    stdout = out.decode(errors="replace")
    if ending:
        command = " ".join(shlex.quote(str(argument)) for argument in argv)
        raise LabError(f"{command}\n{ending}.\n{stdout}\n{err.decode(errors='replace')}")
    return stdout

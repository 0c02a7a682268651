"""The one place a program is run.

Every program gets its own session, so that a terminal's Ctrl-C reaches only this process. It then decides: `interrupt`
ends the programs that may be ended, and waits for those that must finish, on all threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, cast

from cryptpilot_boot.errors import Interrupted, ProgramError
from cryptpilot_boot.system import pipes, programs, selinux, signals
from cryptpilot_boot.system.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.passphrase import SecretBuffer

# Programs get this environment and no other. The frozen agent's LD_LIBRARY_PATH must not reach them, nor an
# administrator's variables, and their messages must be in one language.
_ENVIRONMENT = {"PATH": programs.PATH, "LC_ALL": "C"}
# Programs get this umask: dracut and systemd's generators make files that other users read.
_UMASK = 0o022
_PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL
_KEEP = 4096  # bytes of standard error, from its end

MORTAL = ("setpriv", "--pdeathsig", "KILL")
"""Put this before a command line to end the program when this thread ends, even by SIGKILL.

For programs that use what this process has mounted or mapped: otherwise the next process could not unmount it. Source:
setpriv(1), prctl(2) under PR_SET_PDEATHSIG.
"""

_ENDED, _INTERRUPT = b"e", b"i"  # what wakes the thread that waits for a program

# Reentrant, for `interrupt` in a signal handler.
_lock = threading.RLock()
_interrupted = False
_wakers: set[int] = set()
_asked: set[_Program] = set()  # those that write a secret, and are still waited for
_LOCKED = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended.

    status: its exit status, or -N when signal N ended it. said: the last lines it wrote to standard error, as one
    line; in_time: False when it had to be killed because its time was over. errors: all that was kept of standard
    error, to be searched and never quoted.
    """

    status: int
    said: str
    in_time: bool
    errors: str = dataclasses.field(default="", repr=False)


def run(
    argv: Sequence[str],
    *,
    stdin: memoryview | None = None,
    accept: Sequence[int] = (0,),
    finish: bool = False,
    patience: float = _PATIENCE,
    pass_fds: Sequence[int] = (),
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    keep: int | None = None,
    meter: bool = False,
    name: str = "",
) -> tuple[int, str]:
    """Run a program to its end and return its exit status and standard output.

    stdin: bytes for its standard input, through a pipe (a passphrase goes here and nowhere else); without it the
    program reads nothing. finish: run it to its end, even after `interrupt`; for a program that must not leave its work
    half done, and for cleaning up. patience: seconds between SIGTERM and SIGKILL when it is interrupted. pass_fds:
    descriptors it inherits, under the same numbers. cwd: its working directory. env: its environment beside PATH and
    LC_ALL. keep: how many bytes of its output are wanted, from the end, None for all. meter: the program prints its
    progress in percent, and the current step shows it. name: what an error calls the program. Raises ProgramError, with
    what the program wrote to standard error, when the exit status is not among `accept`, and Interrupted.
    """
    output, errors = (pipes.Collected(limit, Meter() if meter else None) for limit in (keep, _KEEP))
    ended = _conduct(
        argv, output.take, errors, stdin=stdin, finish=finish, patience=patience, pass_fds=pass_fds, cwd=cwd, env=env
    )
    text = output.data.decode("utf-8", "replace")
    if ended.status not in accept:
        said = ended.said or pipes.tail(text) or "failed without a word"
        how = f"exit status {ended.status}" if ended.status >= 0 else f"killed by signal {-ended.status}"
        said = said.removeprefix(f"{_program(argv)}: ")
        raise ProgramError(f"{name or _program(argv)}: {said} ({how})", status=ended.status)
    return ended.status, text


def read_secret(
    argv: Sequence[str], buffer: SecretBuffer, *, timeout: float | None = None, unwanted: int | None = None
) -> Ended:
    """Run a program that writes a secret to its standard output, for at most `timeout` seconds; fill `buffer`.

    The secret goes from the pipe into the buffer and nowhere else. A program that writes more than the buffer takes
    loses the other end of its pipe. unwanted: a descriptor that becomes readable when the program is to end in good
    order before. Raises ProgramError when there is no such program, and Interrupted.
    """
    return _conduct(argv, buffer.fill, pipes.Collected(_KEEP), timeout=timeout, unwanted=unwanted, asked=True)


def give_up_questions() -> None:
    """Send SIGTERM to the programs that `read_secret` runs on other threads, because this process ends."""
    if _lock.acquire(timeout=_LOCKED):
        try:
            for program in _asked:
                program.signal(signal.SIGTERM)
        finally:
            _lock.release()


def interrupt() -> None:
    """End all programs but those that are run with `finish`, and start no others until `clear_interruption`.

    The threads that wait for the programs send SIGTERM, and SIGKILL after 5 s; `run` then raises Interrupted there. May
    be called on any thread, and by a signal handler.
    """
    global _interrupted
    with _lock:
        _interrupted = True
        for waker in _wakers:
            os.write(waker, _INTERRUPT)


def clear_interruption() -> None:
    """Let programs be run again after `interrupt`, for whatever this process does next."""
    global _interrupted
    _interrupted = False


def raise_if_interrupted() -> None:
    """Raise Interrupted after `interrupt`. Call this before work that cannot be interrupted."""
    if _interrupted:
        raise Interrupted


def _conduct(
    argv: Sequence[str],
    take: pipes.Take,
    said: pipes.Collected,
    *,
    stdin: memoryview | None = None,
    finish: bool = False,
    patience: float = _PATIENCE,
    pass_fds: Sequence[int] = (),
    timeout: float | None = None,
    unwanted: int | None = None,
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    asked: bool = False,
) -> Ended:
    """Run a program until it has ended.

    Only what it has written by then counts: its background processes may keep its output open, and go on writing. take:
    takes its standard output; said: collects its standard error. asked: whether it only answers a question, so that it
    need not outlive this process.
    """
    moment = None if timeout is None else time.monotonic() + timeout
    with (
        signals.without_exceptions(interrupt),
        _Program(
            argv, stdin=stdin is not None, finish=finish, pass_fds=pass_fds, cwd=cwd, env=env, asked=asked
        ) as program,
    ):
        try:
            in_time = pipes.attend(program, program.feed(stdin), program.outputs(take, said.take), moment, unwanted)
        except Interrupted:
            program.ask_to_end(patience)
            raise
        if not in_time:
            if pipes.is_readable(unwanted):
                program.ask_to_end(patience)
            program.signal(signal.SIGKILL)
    errors = said.data.decode("utf-8", "replace")
    return Ended(program.process.returncode, pipes.tail(errors), in_time, errors)


class _Program:
    """A running program.

    A thread waits for its end without reaping it. So the process number stays the program's own until the `with` block
    is left, whatever other threads do. pidfd_open(2) would do the same, but only from Linux 5.3 on.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: bool,
        finish: bool,
        pass_fds: Sequence[int],
        cwd: str,
        env: Mapping[str, str] | None,
        asked: bool,
    ) -> None:
        self.finish = finish
        self.ended = False
        self._wake, self._waker = os.pipe()
        try:
            executable = programs.find(argv[0])
            programs.find(_program(argv))
            for descriptor in pass_fds:
                selinux.share(executable, descriptor)
            with _lock:
                self.raise_if_unwanted()
                self.process = subprocess.Popen(
                    argv,
                    executable=executable,
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    env={**_ENVIRONMENT, **(env or {})},
                    cwd=cwd,  # must not depend on where this process was called
                    pass_fds=tuple(pass_fds),
                    start_new_session=True,
                    umask=_UMASK,
                )
                _wakers.add(self._waker)
                if asked:
                    _asked.add(self)
        except BaseException as error:
            os.close(self._wake)
            os.close(self._waker)
            if isinstance(error, OSError):
                raise programs.refused(argv[0], executable, error) from None
            raise
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        os.write(self._waker, _ENDED)

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to `hear`."""
        return self._wake

    def feed(self, stdin: memoryview | None) -> tuple[IO[bytes], pipes.Feed] | None:
        """Return its standard input, if it has one, with what writes these bytes to it."""
        return (self.process.stdin, pipes.feeder(stdin or memoryview(b""))) if self.process.stdin else None

    def outputs(self, take: pipes.Take, listen: pipes.Take) -> tuple[tuple[IO[bytes], pipes.Take], ...]:
        """Return its standard output and error, each with what takes the bytes in it."""
        return (cast("IO[bytes]", self.process.stdout), take), (cast("IO[bytes]", self.process.stderr), listen)

    def raise_if_unwanted(self) -> None:
        """Raise Interrupted after `interrupt`, unless the program is run to its end."""
        if not self.finish:
            raise_if_interrupted()

    def hear(self, wake: int) -> bool:
        """Learn whether the program has ended; to be called again."""
        self.ended = _ENDED in os.read(wake, pipes.CHUNK) or self.ended
        return True

    def ask_to_end(self, patience: float) -> None:
        """Ask the program and what it started to end, and wait at most `patience` seconds for that."""
        self.signal(signal.SIGTERM)
        moment = time.monotonic() + patience
        while not self.ended and select.select([self], [], [], max(0.0, moment - time.monotonic()))[0]:
            self.hear(self._wake)

    def signal(self, number: int) -> None:
        """Send a signal to the program and all it has started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            _asked.discard(self)  # before another process can get its number
        if not self.ended and not self.finish:
            self.signal(signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        self._watcher.join()
        self.process.wait()
        with _lock:
            _wakers.discard(self._waker)
            os.close(self._waker)
        os.close(self._wake)


def _program(argv: Sequence[str]) -> str:
    """Return the name by which a person knows the program of a command line."""
    return argv[len(MORTAL)] if tuple(argv[: len(MORTAL)]) == MORTAL else argv[0]

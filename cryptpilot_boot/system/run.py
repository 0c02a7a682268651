"""The one place a program is run.

Every program gets a session of its own, so that a terminal's Ctrl-C reaches this process alone, which then decides:
`interrupt` ends what may be ended and lets finish what has to be finished, on whichever threads that runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import select
import selectors
import signal
import struct
import subprocess
import termios
import threading
import time
from typing import IO, TYPE_CHECKING, Callable, cast

from cryptpilot_boot.errors import Interrupted, ProgramError, printable
from cryptpilot_boot.system import programs, selinux
from cryptpilot_boot.system.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cryptpilot_boot.passphrase import SecretBuffer

# Programs get this and nothing else: the frozen agent's own LD_LIBRARY_PATH must not reach them, nor anything
# an administrator's shell may hold; and their messages are to be in one language.
_ENVIRONMENT = {"PATH": programs.PATH, "LC_ALL": "C"}
# So do they with the umask: dracut and systemd's generators make files that others have to read.
_UMASK = 0o022
_PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL
_CHUNK = 65536  # bytes read at once
_KEEP = 4096  # bytes of standard error, from its end
_LONGEST_QUOTE = 300  # characters

MORTAL = ("setpriv", "--pdeathsig", "KILL")
"""What to put before a command line for the program to end with this thread, by whatever this is ended.

For programs that use what this process has mounted or mapped: the next one could not clear it away. Source: setpriv(1),
prctl(2) under PR_SET_PDEATHSIG.
"""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those by which a person or systemd wants this process to end."""

# Reads at most so many bytes from a descriptor, and returns how many; 0 at the end, and when no more is wanted.
_Take = Callable[[int, int], int]

# What wakes the thread that waits for a program.
_ENDED = b"e"
_INTERRUPT = b"i"

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
    program reads nothing. finish: run it to its end whatever happens, even after `interrupt`; for what would leave
    something half done, and for clearing up. patience: seconds it has to end in good order when it may be interrupted.
    pass_fds: descriptors it inherits, under the same numbers. cwd: where it runs. env: what its environment holds
    beside PATH and LC_ALL. keep: how many bytes of its output are wanted, from the end, None for all. meter: it says
    how far it is, in percent; the step at work has that then. name: what an error calls it. Raises ProgramError, with
    what the program wrote to standard error, when the exit status is not among `accept`, and Interrupted.
    """
    output, errors = (_Collected(limit, Meter() if meter else None) for limit in (keep, _KEEP))
    ended = _conduct(
        argv, output.take, errors, stdin=stdin, finish=finish, patience=patience, pass_fds=pass_fds, cwd=cwd, env=env
    )
    text = output.data.decode("utf-8", "replace")
    if ended.status not in accept:
        said = ended.said or _tail(text) or "failed without a word"
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
    return _conduct(argv, buffer.fill, _Collected(_KEEP), timeout=timeout, unwanted=unwanted, asked=True)


def give_up_questions() -> None:
    """Ask the programs to end that `read_secret` runs on other threads: this process ends, and nobody hears them."""
    if _lock.acquire(timeout=_LOCKED):
        try:
            for program in _asked:
                program.signal(signal.SIGTERM)
        finally:
            _lock.release()


def interrupt() -> None:
    """Have no program started any more, and those that run ended, but for what is run with `finish`.

    They get SIGTERM, and SIGKILL if they are still there after 5 s, from the threads that wait for them, where `run`
    then raises Interrupted. There is no way back. May be called on any thread, and by a signal handler.
    """
    global _interrupted
    with _lock:
        _interrupted = True
        for waker in _wakers:
            os.write(waker, _INTERRUPT)


def raise_if_interrupted() -> None:
    """Raise Interrupted after `interrupt`: what must be finished once begun is not begun then."""
    if _interrupted:
        raise Interrupted


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Have a signal that raises an exception, on the main thread and anywhere in it, `interrupt` instead."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    raising = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        raising = {}
    for number in raising:
        signal.signal(number, lambda *_: interrupt())
    try:
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)


def _conduct(
    argv: Sequence[str],
    take: _Take,
    said: _Collected,
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

    What it wrote by then counts: what it left running in the background may hold on to its output, and go on writing.
    take: takes what it writes to its standard output; said: what it writes to standard error. asked: whether that is
    all it is run for, so that it need not outlive this process.
    """
    moment = None if timeout is None else time.monotonic() + timeout
    with (
        _signals_interrupt(),
        _Program(
            argv, stdin=stdin is not None, finish=finish, pass_fds=pass_fds, cwd=cwd, env=env, asked=asked
        ) as program,
    ):
        try:
            in_time = _attend(program, _feeder(stdin or memoryview(b"")), take, said.take, moment, unwanted)
        except Interrupted:
            program.ask_to_end(patience)
            raise
        if not in_time:
            if _is_readable(unwanted):
                program.ask_to_end(patience)
            program.signal(signal.SIGKILL)
    errors = said.data.decode("utf-8", "replace")
    return Ended(program.process.returncode, _tail(errors), in_time, errors)


class _Program:
    """A running program.

    A thread waits for its end without reaping it, so that its number is its own until the `with` block is left,
    however many threads there are; pidfd_open(2) would do the same, but only from Linux 5.3 on.
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
                if not finish:
                    raise_if_interrupted()
                self.process = subprocess.Popen(
                    argv,
                    executable=executable,
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    env={**_ENVIRONMENT, **(env or {})},
                    cwd=cwd,  # where this process was called from makes no difference
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

    def hear(self, wake: int) -> bool:
        """Learn whether the program has ended; to be called again."""
        self.ended = _ENDED in os.read(wake, _CHUNK) or self.ended
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
            _asked.discard(self)  # before its number can be another's
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


def _is_readable(descriptor: int | None) -> bool:
    return descriptor is not None and bool(select.select([descriptor], [], [], 0)[0])


def _attend(
    program: _Program,
    feed: Callable[[int], bool],
    take: _Take,
    listen: _Take,
    moment: float | None,
    unwanted: int | None,
) -> bool:
    """Carry bytes to and from a program; False when `moment` or `unwanted` came before the end. Raises Interrupted.

    feed: what to do when standard input is ready; False to be done with it. take, listen: what to do with what stands
    in the pipes of standard output and error.
    """
    process = program.process
    outputs = ((cast("IO[bytes]", process.stdout), take), (cast("IO[bytes]", process.stderr), listen))
    with selectors.DefaultSelector() as selector:
        selector.register(program, selectors.EVENT_READ, program.hear)
        for pipe, read in outputs:
            selector.register(pipe, selectors.EVENT_READ, lambda source, read=read: read(source, _CHUNK) > 0)
        if process.stdin:
            selector.register(process.stdin, selectors.EVENT_WRITE, feed)
        if unwanted is not None:
            selector.register(unwanted, selectors.EVENT_READ, lambda _: True)
        while not program.ended:
            if not program.finish:
                raise_if_interrupted()
            left = None if moment is None else moment - time.monotonic()
            if (left is not None and left <= 0) or _is_readable(unwanted):
                return False
            for key, _ in selector.select(left):
                if not key.data(key.fd):
                    selector.unregister(key.fileobj)
                    cast("IO[bytes]", key.fileobj).close()
    for pipe, read in outputs:
        if not pipe.closed:
            _drain(pipe.fileno(), read)
    return True


def _drain(source: int, take: _Take) -> None:
    """Take what stands in a pipe now, and nothing that is written to it meanwhile."""
    (left,) = struct.unpack("i", fcntl.ioctl(source, termios.FIONREAD, bytes(4)))
    while left > 0 and (count := take(source, left)):
        left -= count


def _feeder(stdin: memoryview) -> Callable[[int], bool]:
    left = stdin

    def feed(target: int) -> bool:
        nonlocal left
        try:
            # so much a pipe that is ready takes without blocking
            left = left[os.write(target, left[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            return False  # it has read all it wants
        return len(left) > 0

    return feed


class _Collected:
    """What a program wrote, all of it or the last `keep` bytes. meter: reads it as it comes."""

    def __init__(self, keep: int | None = None, meter: Meter | None = None) -> None:
        self.data = bytearray()
        self._keep = keep
        self._meter = meter

    def take(self, source: int, most: int) -> int:
        """Read what is there, at most so many bytes, and return how many; 0 at its end."""
        chunk = os.read(source, most)
        self.data += chunk
        if self._keep is not None:
            del self.data[: -self._keep]
        if self._meter:
            self._meter.see(chunk)
        return len(chunk)


def _program(argv: Sequence[str]) -> str:
    """Return the program of a command line that a person knows it by."""
    return argv[len(MORTAL)] if tuple(argv[: len(MORTAL)]) == MORTAL else argv[0]


def _tail(output: str) -> str:
    """Return the last lines of what a program said, as one line that is safe for a console; "" for nothing.

    What it wrote over on a terminal, as a progress that it showed, is left out.
    """
    lines = [line.strip() for line in re.sub(r"[^\n]*\x08", "", output).splitlines() if line.strip()]
    text = printable("; ".join(lines[-3:]))
    return text if len(text) <= _LONGEST_QUOTE else f"...{text[-_LONGEST_QUOTE:]}"

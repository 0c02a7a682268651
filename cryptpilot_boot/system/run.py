"""The one place a program is run."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Programs get this and nothing else: the frozen agent's own LD_LIBRARY_PATH must not reach them, nor anything
# an administrator's shell may hold; and their messages are to be in one language.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
# The agent in the initrd and the administrator's shell may differ in what they look for in PATH.
_SEARCH = _ENVIRONMENT["PATH"].split(":")


def run(argv: Sequence[str], *, stdin: memoryview | None = None, accept: Sequence[int] = (0,)) -> tuple[int, str]:
    """Run a program to its end and return its exit status and standard output.

    stdin: bytes for its standard input, through a pipe (a passphrase goes here and nowhere else); without it the
    program reads nothing. Raises ProgramError, with what the program wrote to standard error, when the exit
    status is not among `accept`.
    """
    try:
        done = subprocess.run(
            argv,
            executable=_find(argv[0]),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            env=_ENVIRONMENT,
            check=False,
        )
    except OSError as error:
        raise ProgramError(f"{argv[0]} cannot be run: {error.strerror}") from None
    if done.returncode not in accept:
        said = _tail(done.stderr or done.stdout)
        raise ProgramError(f"{argv[0]}: {said} (exit status {done.returncode})", status=done.returncode)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _find(program: str) -> str:
    for directory in _SEARCH:
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    raise ProgramError(f"{program}: program not found in {_ENVIRONMENT['PATH']}", f"install {program}")


def _tail(output: bytes) -> str:
    """Return the last lines of what a program said, as one line."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or "failed without a word"

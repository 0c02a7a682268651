"""The stand-in for KMS as a program of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from buildlib.base import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextlib.contextmanager
def running(
    directory: Path, *arguments: str, ready: Path, within: Sequence[str] = (), stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run it for as long as a `with` block lasts, which begins when it serves, or has ended.

    directory: where its files are. ready: the file by which it says that it serves. within: a command line that runs
    another. stderr: as of `subprocess.Popen`.
    """
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.kms", "--dir", str(directory), "--ready-file", str(ready), *arguments]
    with subprocess.Popen([*within, *command], cwd=ROOT, stderr=stderr, text=True) as process:
        try:
            deadline = time.monotonic() + 20
            while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            finally:
                process.kill()

"""The official SDK, unmodified, in an environment and a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CLIENTS = Path(__file__).parents[1] / "kms"


class Sdk:
    """A process that has the SDK loaded and runs jobs; `running` starts one."""

    def __init__(self, jobs: IO[str], answers: IO[str]) -> None:
        self._jobs = jobs
        self._answers = answers

    def fetch(self, job: Mapping[str, object]) -> dict[str, Any]:
        """Run a job; return its answer. What both are, the client's file says."""
        self._jobs.write(json.dumps(job) + "\n")
        self._jobs.flush()
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer


@contextlib.contextmanager
def running(client: str, within: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[Sdk]:
    """Run the SDK for as long as a `with` block lasts.

    client: the file of tests/kms that uses it. within: a command line that runs another. env: more of the
    environment.
    """
    python = os.environ.get("CRYPTPILOT_SDK_PYTHON", "")
    if not Path(python).is_file():
        pytest.fail("CRYPTPILOT_SDK_PYTHON names no Python with the unmodified SDK; `make test` prepares one")
    argv = [*within, python, "-I", str(CLIENTS / "sdk_jobs.py"), str(CLIENTS / client)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Sdk(process.stdin, process.stdout)
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()

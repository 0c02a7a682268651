"""The tests' own conduct: what they start has the signals it should have, and none of them hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]

KILLED = """
import signal, subprocess

def test_one():
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        with subprocess.Popen(["sleep", "20"]) as process:
            process.send_signal(number)
        assert process.returncode == -number
"""
HANGING = """
import subprocess, threading
import pytest
from tests import conftest

@pytest.mark.parametrize("where", ["lock", "program", "fine"])
def test_one(where):
    if where == "lock":
        threading.Event().wait()
    if where == "program":
        with subprocess.Popen(["sleep", "20"]):
            pass

conftest.CEILING_UNIT = conftest.CEILING = conftest.AGAIN = 1
"""


def run_tests(directory: Path, text: str) -> str:
    """Run tests as a script in the background would: with SIGINT, and more, ignored."""
    (directory / "test_one.py").write_text(text)
    ignoring = ["sh", "-c", "trap '' INT QUIT HUP TERM; exec \"$@\"", "sh"]
    done = subprocess.run(
        [*ignoring, *PYTEST, "--rootdir", directory, directory],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def test_what_tests_start_heeds_signals_though_a_script_has_them_ignored(tmp_path: Path) -> None:
    assert "1 passed" in run_tests(tmp_path, KILLED)


def test_a_test_that_hangs_fails_and_the_next_is_run(tmp_path: Path) -> None:
    said = run_tests(tmp_path, HANGING)
    assert "2 failed, 1 passed" in said
    assert said.count("Failed: not done after 1 s") >= 2

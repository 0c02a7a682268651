"""dracut's hooks that are no more than a decision."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.system import init
from tests.lab.run import started

HOOK = ROOT / "initrd_hooks/cryptpilot-timeout.sh"


@pytest.mark.parametrize(
    ("state", "count"), [("activating", "0"), ("active", "240"), ("failed", "240"), ("inactive", "240"), ("", "240")]
)
def test_with_systemd_dracut_counts_anew_while_the_agent_is_at_work(tmp_path: Path, state: str, count: str) -> None:
    """As dracut runs it: in the shell of its main loop. systemctl stands in for itself, and ends as it does."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$*" = "is-active cryptpilot-initrd.service" ] && echo {state}\nexit 3\n')
    systemctl.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", f'main_loop=240; job={HOOK} . {HOOK}; echo "$main_loop"'],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "DRACUT_SYSTEMD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"{count}\n", "")


AGENT = ROOT / "initrd_hooks/cryptpilot-initrd.sh"


def agent_script(directory: Path, console: str) -> list[str | Path]:
    """Return what runs the script that runs the agent; `directory` is its /run/cryptpilot, and `echo` its agent."""
    text = AGENT.read_text().replace("/run/cryptpilot", str(directory)).replace("/dev/console", console)
    text = text.replace("/dev/kmsg", "/dev/null").replace(
        "/usr/bin/cryptpilot boot-service --stage initrd", "echo said"
    )
    (directory / "script").write_text(text)
    return ["sh", directory / "script"]


def test_without_systemd_the_end_of_the_agent_is_told_when_all_was_said(tmp_path: Path) -> None:
    console = tmp_path / "console"
    subprocess.run(agent_script(tmp_path, str(console)), check=True, timeout=20)
    assert console.read_text().endswith(": said\n")
    assert {path.name for path in tmp_path.iterdir()} == {"console", "script", "initrd.ended", "may-stop-boot"}


def test_without_systemd_the_boot_does_not_wait_for_a_console_that_takes_nothing(tmp_path: Path) -> None:
    console = tmp_path / "console"
    os.mkfifo(console)  # to open it for writing waits for a reader
    with started(agent_script(tmp_path, str(console)), start_new_session=True) as process:
        moment = time.monotonic() + 20
        while not (tmp_path / "initrd.ended").exists() and time.monotonic() < moment:
            time.sleep(0.1)
        assert (tmp_path / "initrd.ended").exists()
        os.killpg(process.pid, signal.SIGKILL)


def test_that_the_boot_stops_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(agent_script(tmp_path, "/dev/null"), check=True, timeout=20)
    monkeypatch.setattr(init, "_STOP_BOOT", tmp_path / "stop-boot")
    monkeypatch.setattr(init, "_MAY_STOP_BOOT", tmp_path / "may-stop-boot")
    monkeypatch.setattr(init, "runs_systemd", lambda: False)
    monkeypatch.setattr(Path, "touch", lambda _: pytest.fail("a file was made"))
    init.stop_boot()
    assert (tmp_path / "stop-boot").exists()

"""dracut's hooks that are no more than a decision."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT

if TYPE_CHECKING:
    from pathlib import Path

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

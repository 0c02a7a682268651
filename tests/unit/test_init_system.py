"""Giving up on a boot, with systemd and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from cryptpilot_boot import paths
from cryptpilot_boot.system import init

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("systemd", [True, False])
def test_a_boot_is_stopped_by_whoever_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, systemd: bool
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(init, "run", lambda argv, **_: ran.append(argv))
    monkeypatch.setattr(init, "runs_systemd", lambda: systemd)
    monkeypatch.setattr(paths, "STOP_BOOT", tmp_path / "stop-boot")
    monkeypatch.setattr(paths, "MAY_STOP_BOOT", tmp_path / "may-stop-boot")
    init.stop_boot()
    assert [(argv[0], argv[-1]) for argv in ran] == ([("systemctl", "emergency.target")] if systemd else [])
    assert (tmp_path / "stop-boot").exists() is not systemd


def test_the_hooks_look_for_what_the_agent_leaves() -> None:
    for name in ("finished", "give-up"):
        assert f"-e {paths.STOP_BOOT} " in _hook(name)


def _hook(name: str) -> str:
    return (ROOT / "initrd_hooks" / f"cryptpilot-{name}.sh").read_text()

"""The one bundle, the same bytes, starts in every release that there is a tree of.

What it does there with real volumes is shown by tests/volumes/test_releases.py and the boots.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

import cryptpilot_boot
from tests.lab.tree import RELEASES, SHARE, TESTING, in_chroot, root_tree
from tests.machines import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the bundle and a configuration of one volume."""
    directory = tmp_path_factory.mktemp("share")
    shutil.copytree(CHECKOUT / "build/dist/cryptpilot", directory / "bundle")
    (directory / "config/volumes").mkdir(parents=True)
    file = directory / "config/volumes/swap.toml"
    file.touch(0o600)
    file.write_text('volume = "swap"\ndev = "/dev/absent"\n[encrypt.otp]\n')
    return directory


@pytest.mark.parametrize("release", [*RELEASES, TESTING])
def test_it_starts(lab: None, share: Path, release: str) -> None:  # noqa: ARG001
    tree = root_tree(release)
    command = f"{SHARE}/bundle/cryptpilot"
    assert in_chroot(tree, [command, "--version"], share=share) == f"cryptpilot {cryptpilot_boot.__version__}\n"
    shown = json.loads(in_chroot(tree, [command, "--config-dir", f"{SHARE}/config", "show", "--json"], share=share))
    assert [volume["volume"] for volume in shown] == ["swap"]

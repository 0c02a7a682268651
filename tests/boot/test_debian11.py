"""Debian 11: the initrds its dracut 051 makes."""

from __future__ import annotations

import pytest

from tests.boot import luks
from tests.boot.matrix import Bench, Release, Row, require_boot, require_going_on
from tests.lab.tree import clone

RELEASE = "bullseye"

ROWS = [
    Row("network-legacy"),
    pytest.param(Row("network-legacy", systemd=False), marks=pytest.mark.matrix),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_machine_boots(row: Row, release: Release, bench: Bench) -> None:
    require_boot(row, release, bench)


@pytest.mark.matrix
@pytest.mark.parametrize("systemd", [True, False], ids=["systemd", "no-systemd"])
def test_networkmanager_in_the_main_loop_keeps_no_boot(systemd: bool, release: Release, bench: Bench) -> None:
    """As in Enterprise Linux 8. Debian has the program it takes in another place than dracut looks for it."""
    tree = clone(release.tree, bench.work / "tree")
    for name in ("nm-initrd-generator", "nm-dhcp-helper"):
        (tree / "usr/libexec" / name).symlink_to(f"../lib/NetworkManager/{name}")
    require_going_on(Row("network-manager", systemd=systemd), release, bench, tree)


def test_a_host_only_image_leaves_volumes_to_the_agent(release: Release, bench: Bench) -> None:
    luks.require_volumes_left_alone(release.tree, bench.work, "late", luks.FOREIGN)

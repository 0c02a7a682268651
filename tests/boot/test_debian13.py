"""Debian 13: the initrds its dracut 106 makes."""

from __future__ import annotations

import pytest

from tests.boot import luks
from tests.boot.matrix import Bench, Release, Row, require_boot

RELEASE = "trixie"

ROWS = [
    Row("systemd-networkd"),
    pytest.param(Row("network-manager", hostonly=True), marks=pytest.mark.matrix),
    pytest.param(Row("network-legacy", systemd=False), marks=pytest.mark.matrix),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_machine_boots(row: Row, release: Release, bench: Bench) -> None:
    require_boot(row, release, bench)


def test_a_host_only_image_leaves_volumes_to_the_agent(release: Release, bench: Bench) -> None:
    luks.require_volumes_left_alone(release.tree, bench.work, "late", luks.FOREIGN)

"""Debian testing: the initrds that the newest dracut makes."""

from __future__ import annotations

import pytest

from tests.boot.matrix import Bench, Release, Row, require_boot
from tests.lab.tree import TESTING

RELEASE = TESTING

ROWS = [
    Row("systemd-networkd"),
    pytest.param(Row("network-manager", hostonly=True), marks=pytest.mark.matrix),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_machine_boots(row: Row, release: Release, bench: Bench) -> None:
    require_boot(row, release, bench)

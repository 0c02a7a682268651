"""As `test_convert.py`, where the image and the machine that converts it have different releases of Debian."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot.conversion import Row, Workshop, convert, require_boots
from tests.boot.stock import Stock
from tests.lab.tree import clone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace


@pytest.mark.matrix
def test_an_image_of_debian_13_is_converted_on_debian_12(
    workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    row = Row(Stock("xfs", "ext4", release="trixie"), uefi=True)
    convert(row, workshop)
    require_boots(row, workshop, network, tmp_path)


@pytest.mark.matrix
def test_an_image_of_debian_11_is_converted_on_debian_13(
    workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    """By default, e2fsprogs of Debian 13 makes a /boot that GRUB of Debian 11 cannot read."""
    newer = machines.install(clone(Stock(release="trixie").tree, tmp_path / "newer"))
    place = dataclasses.replace(workshop, tree=newer)
    row = Row(Stock("ext4", "", release="bullseye"), upgraded=False)
    convert(row, place)
    require_boots(row, place, network, tmp_path)

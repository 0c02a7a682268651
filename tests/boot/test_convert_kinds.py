"""As `test_convert.py`, of other kinds of images: MBR, LVM, boot loader entries, SELinux."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.boot.conversion import Row, Workshop, convert, parameters, require_boots
from tests.boot.kinds import IN_LVM
from tests.boot.stock import Stock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

ROWS = (
    Row(Stock("ext4", "", mbr=True, efi=False, swap=True)),
    Row(Stock("ext4", "ext4", mbr=True), uefi=True),
    Row(IN_LVM),
    Row(Stock("ext4", "ext4", entries="variable"), upgraded=False),
    Row(Stock("ext4", "", entries="static"), uefi=True, upgraded=False),
    Row(Stock("ext4", "", selinux=True), upgraded=False),
)


@parameters(ROWS)
def test_a_converted_image_boots(row: Row, workshop: Workshop, network: Namespace, tmp_path: Path) -> None:
    convert(row, workshop)
    require_boots(row, workshop, network, tmp_path)

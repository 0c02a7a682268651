"""As `test_convert.py`, with UEFI; by GRUB, and by a unified kernel image, which no upgrade changes.

In a file of its own, so that both are run at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.boot.conversion import Row, Workshop, convert, parameters, require_boots
from tests.boot.stock import Stock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

ROWS = (
    Row(Stock("xfs", ""), uefi=True, pairwise=True),
    Row(Stock("xfs", "ext4"), uefi=True),
    Row(Stock("ext4", "ext4"), uefi=True),
    Row(Stock("ext4", ""), uefi=True),
    Row(Stock("ext4", "ext4", unified=True), uefi=True),
)


@parameters(ROWS)
def test_a_converted_image_boots_and_so_does_the_kernel_that_apt_brings(
    row: Row, workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    convert(row, workshop)
    require_boots(row, workshop, network, tmp_path)

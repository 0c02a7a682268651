"""Ordinary images are converted, boot by BIOS from a root that is unlocked from KMS, and have their kernel upgraded.

`make matrix` runs all rows of {BIOS, UEFI} x {ext4, xfs} x {/boot apart, inside}, and some with more. `make test` runs
two, which differ in all three: BIOS, ext4, apart here; UEFI, xfs, inside in `test_convert_uefi.py`. That is each value,
and six of the twelve pairs. It does not have BIOS with xfs, BIOS with inside, UEFI with ext4, UEFI with apart, ext4
with inside and xfs with apart; nor integrity, qcow2, and the unified kernel image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.boot.conversion import Row, Workshop, convert, parameters, require_boots
from tests.boot.stock import Stock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

ROWS = (
    Row(Stock("ext4", "ext4"), pairwise=True),
    Row(Stock("ext4", ""), qcow2=True),
    Row(Stock("xfs", "ext4")),
    Row(Stock("xfs", "")),
    Row(Stock("ext4", ""), integrity=True),
)


@parameters(ROWS)
def test_a_converted_image_boots_and_so_does_the_kernel_that_apt_brings(
    row: Row, workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    place = workshop.of_kms(tmp_path) if row.qcow2 else workshop
    convert(row, place)
    require_boots(row, place, network, tmp_path)

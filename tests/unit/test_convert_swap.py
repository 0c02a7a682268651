"""Swap space beside a root is left out of a new image, and nothing in it waits for that, or resumes from it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot.convert import bls, bootloader, facts, logical, mending, plan
from cryptpilot_boot.convert.facts import Content, InstalledDisk, Loader, Swap
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import lvm, partition_table
from cryptpilot_boot.system.lvm import Logical, Segment
from cryptpilot_boot.system.partition_table import Partition
from cryptpilot_boot.units import fstab
from tests.unit import test_convert_enterprise as enterprise
from tests.unit.test_convert_lvm import IDENTITY, IN_LVM, MIB, row, said
from tests.unit.test_convert_mbr import GRUB, made
from tests.unit.test_convert_plan import CONFIGURATION, FOUND, FSTAB, LOADER, ROOT_UUID, VOLUME, planned

if TYPE_CHECKING:
    from pathlib import Path

SWAP_UUID = "8d2ab1ba-5dce-4d96-a9b9-f37a5b9d97a4"
SPACE = Content("swap", SWAP_UUID, "my swap")
# sfdisk's type of swap space; behind the root, as installers put it
PARTITION = Partition(
    3, 1677312, 2048, "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "0C7DB2F6-95A6-4C0D-8F2D-8B8A5C3E7D03", "paging"
)
ROOT = Logical("rl", "root", 60 * MIB, (Segment(0, 60 * MIB, MIB),), IDENTITY)
IN_GROUP = dataclasses.replace(
    SPACE, logical=Logical("rl", "swap", 20 * MIB, (Segment(0, 20 * MIB, 61 * MIB),), IDENTITY)
)
NAMES = {
    "partition": [
        *(f"UUID={SWAP_UUID}", f'UUID="{SWAP_UUID}"', f"/dev/disk/by-uuid/{SWAP_UUID}", "LABEL=my\\040swap"),
        *(f"PARTUUID={PARTITION.uuid.lower()}", "PARTLABEL=paging", "/dev/vda3", "/dev/nvme0n1p3"),
    ],
    "logical": [
        *(f"UUID={SWAP_UUID}", "LABEL=my\\040swap", "/dev/mapper/rl-swap", "/dev/rl/swap"),
        *("/dev/disk/by-id/dm-name-rl-swap", f"/dev/disk/by-id/dm-uuid-LVM-{IDENTITY}"),
    ],
}
KEPT = ["/swapfile", "/dev/zram0", "/dev/vdb7", "/dev/mapper/other-swap", "UUID=1234"]
"""What fstab swaps to that has nothing to do with the image's partitions, or is a file in the root."""


def swapping(kind: str, names: list[str]) -> InstalledDisk:
    """Return an image that has swap space of a kind, with lines for it in its fstab."""
    table = dataclasses.replace(FOUND.table, partitions=(*FOUND.table.partitions, PARTITION))
    lines = "".join(f"{name} none swap sw 0 0\n" for name in names)
    if kind == "logical":
        system = dataclasses.replace(IN_LVM.system, fstab=IN_LVM.system.fstab + lines)
        return dataclasses.replace(IN_LVM, system=system, swaps=(Swap(IN_GROUP),))
    swaps = plan.swap_partitions(table, {**FOUND.contents, 3: SPACE})
    system = dataclasses.replace(FOUND.system, fstab=FSTAB + lines)
    return dataclasses.replace(FOUND, table=plan.without(table, swaps), system=system, swaps=tuple(swaps))


@pytest.mark.parametrize(("kind", "what"), [("partition", "partition 3"), ("logical", "logical volume rl/swap")])
def test_swap_space_is_left_out_and_so_are_its_lines(kind: str, what: str) -> None:
    """Whichever name these have for it. They stay as comments, and every other line as it is."""
    found = swapping(kind, [*NAMES[kind], *KEPT])
    done = planned(found)
    assert f"swap: {what} is left out, because the host could read and change it; a temporary volume can be swap" in [
        *done.lines
    ]
    assert 3 not in [one.number for one in done.table.partitions]
    text = mending.fstab(found.system.fstab, VOLUME, "", done.swapped_to)
    assert [one.source for one in fstab.parse(text) if one.kind == "swap"] == KEPT
    old = found.system.fstab.replace(f"UUID={ROOT_UUID}", VOLUME.mapper_path)
    old = old.replace("/dev/mapper/my--vg-root", VOLUME.mapper_path)
    for line, before in zip(text.split("\n"), old.split("\n")):
        assert line == before or (line.startswith("# ") and line.endswith(f": {before}"))


def test_an_image_without_swap_space_keeps_every_line() -> None:
    found = dataclasses.replace(FOUND, system=dataclasses.replace(FOUND.system, fstab=f"{FSTAB}/dev/vda7 none swap\n"))
    assert planned(found).swapped_to == frozenset()
    assert not [line for line in planned(found).lines if "swap" in line]


def test_swap_space_beside_a_root_in_lvm_is_told_from_it() -> None:
    text = said(row(0, 15, "root"), row(15, 5, "swap"), group="rl")
    root, swap = logical.volumes(1, lvm.parse(text))
    assert (root, swap) == (ROOT, IN_GROUP.logical)
    held = {swap: SPACE, root: Content("xfs", ROOT_UUID)}
    assert logical.root_among(1, held) == root
    assert logical.root_among(1, {root: held[root]}) == root


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        (["xfs", "xfs"], "has several logical volumes: a, b"),
        (["xfs", "xfs", "swap"], "has several logical volumes: a, b"),
        (["xfs", ""], "has several logical volumes: a, b"),
        (["swap"], "has swap space alone"),
        (["xfs", "swsuspend"], "logical volume b on partition 1 holds a system that hibernates"),
    ],
)
def test_what_else_is_in_the_group_is_refused(kinds: list[str], reason: str) -> None:
    held = {Logical("rl", name, MIB, ()): Content(kind) for name, kind in zip("abc", kinds)}
    with pytest.raises(CryptpilotError, match="cannot be converted: ") as refusal:
        logical.root_among(1, held)
    assert reason in refusal.value.what


def test_a_system_that_hibernates_is_refused() -> None:
    contents: dict[int, Content] = {**FOUND.contents, 2: Content("swsuspend")}
    assert plan.swap_partitions(FOUND.table, contents) == []
    with pytest.raises(CryptpilotError, match="partition 2 holds a system that hibernates"):
        plan.roles(FOUND.table, contents)


def test_what_is_a_boot_loaders_is_no_swap_space() -> None:
    contents: dict[int, Content] = {**FOUND.contents, 14: SPACE, 15: SPACE}
    assert plan.swap_partitions(FOUND.table, contents) == []


# As Debian's installer lays out a disk with an MBR.
DEBIAN = """label: dos
label-id: 0x1234abcd
1 : start=2048, size=1310720, type=83, bootable
2 : start=1314814, size=200706, type=5
5 : start=1314816, size=200704, type=82
"""


def test_a_logical_partition_with_swap_space_goes_with_the_extended_one(tmp_path: Path) -> None:
    table = made(tmp_path / "img", DEBIAN)
    contents = {1: Content("ext4", ROOT_UUID, "", 4096), 2: Content(), 5: SPACE}
    with pytest.raises(CryptpilotError, match=r"partition 2 of in\.img is an extended or a logical one"):
        plan.require_primary(table, "in.img")
    swaps = plan.swap_partitions(table, contents)
    assert [str(one) for one in swaps] == ["partition 5"]
    left = plan.without(table, swaps)
    plan.require_primary(left, "in.img")
    assert [one.number for one in left.partitions] == [1]
    assert plan.roles(left, {1: contents[1]}, GRUB).candidates == (1,)
    new = tmp_path / "new"
    new.write_bytes(b"")
    with new.open("r+b") as file:
        file.truncate(2 << 30)
    partition_table.write(new, left)
    assert partition_table.read(new) == left


def test_a_logical_partition_with_anything_else_stays_refused(tmp_path: Path) -> None:
    table = made(tmp_path / "img", f"{DEBIAN.replace('size=200704', 'size=100352')}6 : size=90000, type=83\n")
    swaps = plan.swap_partitions(table, {1: Content("ext4"), 2: Content(), 5: SPACE, 6: Content("ext4")})
    with pytest.raises(CryptpilotError, match=r"partition 2 of in\.img is an extended or a logical one"):
        plan.require_primary(plan.without(table, swaps), "in.img")
    # and an extended one that is empty, where nothing is left out
    assert plan.without(table, []) == table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('GRUB_CMDLINE_LINUX="resume=/dev/mapper/rl-swap rhgb quiet"', 'GRUB_CMDLINE_LINUX="rhgb quiet"'),
        ('GRUB_CMDLINE_LINUX="a resume=UUID=1-2 resume_offset=34816"', 'GRUB_CMDLINE_LINUX="a "'),
        ("GRUB_CMDLINE_LINUX=resume=/dev/vda3", "GRUB_CMDLINE_LINUX="),
        ('A="noresume resumedelay=3 x.resume=1"', 'A="noresume resumedelay=3 x.resume=1"'),
        ("# resume=/dev/vda3", "# resume=/dev/vda3"),
    ],
)
def test_no_kernel_is_told_what_to_resume_from(text: str, expected: str) -> None:
    assert mending.without_gone(f"X=1\n{text}\nY=2\n") == f"X=1\n{expected}\nY=2\n"


RESUMES = "resume=/dev/mapper/rl-swap"


@pytest.mark.parametrize("name", ["el8", "el9", "debian"])
def test_an_image_that_would_resume_is_converted_and_no_longer_does(name: str) -> None:
    words = f"{enterprise.WORDS} {RESUMES} rd.lvm.lv=rl/root rd.lvm.lv=rl/swap quiet"
    loaders: dict[str, Any] = {
        "el8": dataclasses.replace(
            enterprise.EL8,
            configurations={enterprise.CONFIGURATION: enterprise.configuration(words)},
            environments={enterprise.ENVIRONMENT: enterprise.BLOCK.replace(enterprise.WORDS, words)},
        ),
        "el9": dataclasses.replace(
            enterprise.EL9, entries={enterprise.ENTRY: enterprise.entry(words)}, command_line=f"{words}\n"
        ),
    }
    if name == "debian":
        loader = Loader({CONFIGURATION: LOADER.replace(" ro", f" ro {RESUMES}")})
        found = dataclasses.replace(FOUND, system=dataclasses.replace(FOUND.system, loader=loader))
    else:
        loader = loaders[name]
        found = enterprise.image(loader)
    assert bootloader.resumes(loader)
    done = planned(found)
    assert "hibernation: resume= is removed from the kernel command line" in done.lines
    new = bootloader.mended(done.loader, VOLUME, "")
    if name != "debian":
        assert not bootloader.resumes(new)
        assert all(one.value("quiet") is not None for one in bls.kernels(new))
    assert "resume=" not in new.command_line
    # what is still there in the end is an error
    path = next(iter(loader.configurations))
    kept = dataclasses.replace(
        new, configurations={path: f"\tlinux /vmlinuz root={VOLUME.mapper_path} {RESUMES}\n\tinitrd /x\n"}
    )
    assert bootloader.faults(kept, VOLUME, [path]) == [
        f"{path} makes an initrd wait for a system that hibernates (resume=), which is gone"
    ]


def test_a_report_of_names_is_ascii() -> None:
    assert json.dumps(planned(swapping("logical", NAMES["logical"])).lines).isascii()
    assert facts.Swap(SPACE, PARTITION).partition == PARTITION

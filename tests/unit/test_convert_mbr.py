"""Images with an MBR: what becomes of them, and what is refused; by what sfdisk really says and does."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.config import Volume
from cryptpilot_boot.convert import facts, layout, plan
from cryptpilot_boot.convert.facts import Content, InstalledDisk
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import clone, partition_table
from cryptpilot_boot.system.disk_image import ImageFile
from cryptpilot_boot.system.partition_table import SECTOR, Table
from tests.unit.test_convert_plan import BOOT_UUID, ROOT_UUID, SYSTEM, VOLUME

if TYPE_CHECKING:
    from collections.abc import Callable

# sfdisk --json of util-linux 2.38, of an image as clouds without UEFI have them.
SAID = """{
   "partitiontable": {
      "label": "dos", "id": "0x1234abcd", "device": "in.img", "unit": "sectors", "sectorsize": 512,
      "partitions": [
         {"node": "in.img1", "start": 2048, "size": 4194304, "type": "83", "bootable": true}
      ]
   }
}"""
APART = """label: dos
label-id: 0x1234abcd
1 : start=2048, size=327680, type=83, bootable
2 : start=329728, size=32768, type=ef
3 : start=362496, size=1310720, type=83
"""
GRUB = b"\xeb\x63\x90" + bytes(380) + b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n"
IN_MBR = dataclasses.replace(VOLUME, dev="/dev/disk/by-partuuid/1234abcd-01")
INSIDE = f"UUID={ROOT_UUID} / ext4 defaults 0 1\n"
TABLE = partition_table.parse(SAID)
FOUND = InstalledDisk(
    ImageFile("raw", 4 << 30),
    TABLE,
    {1: Content("ext4", ROOT_UUID, "", 4096)},
    dataclasses.replace(SYSTEM, fstab=INSIDE),
    {},
)


def made(path: Path, text: str, size: int = 2 << 30) -> Table:
    """Have sfdisk make a table, and read it."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "--quiet", path], input=text, text=True, check=True)
    table = partition_table.read(path)
    assert table is not None
    return plan.require_table(table, "in.img")


def apart(path: Path, fstab: str = "") -> InstalledDisk:
    """Return an image with a /boot of its own, and an EFI system partition."""
    contents = {1: Content("ext4", BOOT_UUID), 2: Content("vfat", "ABCD-1234"), 3: FOUND.contents[1]}
    text = f"{INSIDE}UUID={BOOT_UUID} /boot ext4 defaults 0 2\nUUID=ABCD-1234 /boot/efi vfat defaults 0 0\n{fstab}"
    system = dataclasses.replace(SYSTEM, root=3, fstab=text)
    return InstalledDisk(ImageFile("raw", 2 << 30), made(path, APART), contents, system, {})


def planned(
    found: InstalledDisk = FOUND, volume: Volume = IN_MBR, code: bytes = GRUB, *, uki: bool = False
) -> plan.Conversion:
    roles = plan.roles(found.table, found.contents, code)
    return plan.make(found, volume, roles, plan.Unified() if uki else None)


def test_an_mbr_is_read_as_sfdisk_says_it() -> None:
    (one,) = TABLE.partitions
    assert (one.number, one.start, one.type, one.bootable) == (1, 2048, "83", True)
    assert (one.uuid, TABLE.identifier) == ("1234ABCD-01", "0x1234abcd")
    assert facts.named("PARTUUID=1234abcd-01", TABLE, FOUND.contents) == 1
    assert facts.named("/dev/disk/by-partuuid/1234abcd-01", TABLE, FOUND.contents) == 1
    assert facts.named("PARTUUID=1234abcd-02", TABLE, FOUND.contents) is None


@pytest.mark.needs("sfdisk")
def test_an_mbr_is_written_as_it_was(tmp_path: Path) -> None:
    """Where older tools put partitions too, with holes in their numbers, and without an identifier."""
    for text in (APART, APART.replace("start=2048", "start=63"), APART.replace("0x1234abcd", "0x00000000")):
        table = made(tmp_path / "in.img", text)
        with (tmp_path / "out.img").open("wb") as file:
            file.truncate(2 << 30)
        partition_table.write(tmp_path / "out.img", table)
        assert partition_table.read(tmp_path / "out.img") == table
        assert "uuid=" not in partition_table.script(table)
    assert [one.uuid for one in table.partitions] == ["", "", ""]


@pytest.mark.needs("sfdisk")
def test_what_is_before_the_first_partition_is_the_boot_loaders(tmp_path: Path) -> None:
    found = apart(tmp_path / "in.img")
    assert plan.roles(found.table, found.contents, GRUB) == facts.Roles((1, 3), esp=2, gap=True)
    areas = planned(found, dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/1234abcd-03")).boot_areas
    assert areas == ((0, 440), (512, (1 << 20) - 512))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3 << 20))
    target.write_bytes(b"\xff" * (3 << 20))
    with target.open("r+b") as file:
        clone.copy_areas(str(source), file.fileno(), ((0, 440), (512, (2 << 20) - 512)))
    old, new = source.read_bytes(), target.read_bytes()
    # the identifier and the partitions are the table's
    assert (new[:440], new[440:512], new[512 : 2 << 20]) == (old[:440], b"\xff" * 72, old[512 : 2 << 20])
    assert set(new[2 << 20 :]) == {0xFF}


@pytest.mark.needs("sfdisk")
def test_a_table_is_kept_but_for_the_size_of_the_root(tmp_path: Path) -> None:
    found = apart(tmp_path / "in.img")
    become = planned(found, dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/1234abcd-03"))
    root = found.table.partition(3)
    larger = dataclasses.replace(root, size=root.size + (16 << 20) // SECTOR)
    kept = tuple(one for one in found.table.partitions if one.number != 3)
    assert become.table == dataclasses.replace(found.table, partitions=(*kept, larger))
    assert (become.boot, become.new_boot, become.loader.install, become.esp) == (1, False, (), 2)
    with (tmp_path / "out.img").open("wb") as file:
        file.truncate(become.size)
    partition_table.write(tmp_path / "out.img", become.table)


@pytest.mark.needs("sfdisk")
def test_a_boot_inside_the_root_gets_a_primary_partition_and_grub_is_installed_before_it(tmp_path: Path) -> None:
    become = planned()
    boot, root = become.table.partition(2), become.table.partition(1)
    assert (boot.start, boot.size * SECTOR, boot.type, boot.bootable) == (2048, 1 << 30, "83", False)
    assert (root.start, root.bootable, root.uuid) == (boot.end, True, "1234ABCD-01")
    assert become.loader.install == (("grub-install", "--target=i386-pc", "{disk}"),)
    with (tmp_path / "out.img").open("wb") as file:
        file.truncate(become.size)
    partition_table.write(tmp_path / "out.img", become.table)


@pytest.mark.needs("sfdisk")
def test_a_disk_gets_the_identifier_by_which_the_volume_is_known(tmp_path: Path) -> None:
    volume = dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/0badcafe-03")
    become = planned(apart(tmp_path / "in.img"), volume)
    assert become.table.identifier == "0x0badcafe"
    assert [one.uuid for one in become.table.partitions] == ["0BADCAFE-01", "0BADCAFE-02", "0BADCAFE-03"]
    with (tmp_path / "out.img").open("wb") as file:
        file.truncate(become.size)
    partition_table.write(tmp_path / "out.img", become.table)
    # what is only commented on, or the root's own, is not in the way
    fstab = "# /boot was PARTUUID=1234abcd-01 once\n"
    assert planned(apart(tmp_path / "in.img", fstab), volume).table == become.table
    system = dataclasses.replace(SYSTEM, fstab=INSIDE.replace(f"UUID={ROOT_UUID}", "PARTUUID=1234abcd-01"))
    other = dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/0badcafe-01")
    assert planned(dataclasses.replace(FOUND, system=system), other).table.identifier == "0x0badcafe"


@pytest.mark.needs("sfdisk")
def test_a_disk_keeps_the_identifier_by_which_its_system_knows_other_partitions(tmp_path: Path) -> None:
    found = apart(tmp_path / "in.img", "/dev/disk/by-partuuid/1234ABCD-02 /efi vfat defaults 0 0\n")
    settings = dataclasses.replace(
        apart(tmp_path / "in.img").system, loader_settings="GRUB_CMDLINE_LINUX=x=PARTUUID=1234abcd-01\n"
    )
    own = dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/1234abcd-03")
    other = dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/0badcafe-03")
    for one, number in ((found, 2), (dataclasses.replace(found, system=settings), 1)):
        assert planned(one, own).table.identifier == "0x1234abcd"
        with pytest.raises(CryptpilotError, match=f"partition {number} by PARTUUID=1234abcd-0{number}") as refusal:
            planned(one, other)
        assert 'dev = "/dev/disk/by-partuuid/1234abcd-03"' in refusal.value.hint


@pytest.mark.parametrize(
    ("dev", "reason"),
    [
        ("/dev/disk/by-partlabel/root", "partitions in an MBR have no names but"),
        ("/dev/disk/by-partuuid/11111111-2222-3333-4444-555555555555", "partitions in an MBR have no names but"),
        ("/dev/disk/by-partuuid/1234ABCD-01", "partitions in an MBR have no names but"),
        ("/dev/vda1", "partitions in an MBR have no names but"),
        ("/dev/disk/by-partuuid/1234abcd-02", "the root is partition 1"),
        ("/dev/disk/by-partuuid/00000000-01", "has no such names"),
    ],
)
def test_a_name_that_no_partition_of_it_can_have_is_refused_and_one_is_said(dev: str, reason: str) -> None:
    with pytest.raises(CryptpilotError, match=reason) as refusal:
        planned(volume=dataclasses.replace(IN_MBR, dev=dev))
    assert 'dev = "/dev/disk/by-partuuid/1234abcd-01"' in refusal.value.hint
    blank = dataclasses.replace(FOUND, table=partition_table.identified(TABLE, "0x00000000"))
    with pytest.raises(CryptpilotError) as refusal:
        planned(blank, dataclasses.replace(IN_MBR, dev=dev.replace("1234abcd", "00000000")))
    assert "by-partuuid/XXXXXXXX-01" in refusal.value.hint


def _partitions(*changes: dict[str, int | str]) -> Callable[[InstalledDisk], InstalledDisk]:
    def changed(found: InstalledDisk) -> InstalledDisk:
        partitions = tuple(dataclasses.replace(TABLE.partitions[0], **one) for one in changes)  # type: ignore[arg-type]
        contents = {one.number: found.contents.get(one.number, Content("vfat")) for one in partitions}
        return dataclasses.replace(
            found, table=dataclasses.replace(found.table, partitions=partitions), contents=contents
        )

    return changed


REFUSED: dict[str, tuple[Callable[[InstalledDisk], InstalledDisk], str]] = {
    "at sector 63": (
        _partitions({"number": 2, "type": "EF", "start": 63, "size": 1000}, {}),
        "begins at sector 63",
    ),
    "no boot code": (lambda found: found, "neither GRUB's boot code nor an EFI system partition"),
    "two EFI": (
        _partitions({"number": 2, "type": "EF", "start": 63, "size": 1000}, {"number": 3, "type": "EF"}, {}),
        "there are 2 EFI system partitions",
    ),
    "large": (
        lambda found: dataclasses.replace(found, image=ImageFile("raw", 2 << 40)),
        "which is too large for an MBR",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_mbr_cannot_be_is_refused_with_its_reason(name: str) -> None:
    change, reason = REFUSED[name]
    with pytest.raises(CryptpilotError, match="cannot be converted: ") as refusal:
        planned(change(FOUND), code=bytes(440) if name == "no boot code" else GRUB)
    assert reason in refusal.value.what


def test_a_disk_that_ends_where_an_mbr_does_is_converted() -> None:
    found = dataclasses.replace(FOUND, image=ImageFile("raw", (2 << 40) - (1 << 20)))
    assert planned(found).size == (2 << 40) - (1 << 20)


def test_all_four_numbers_may_be_in_use() -> None:
    others: list[dict[str, int | str]] = [{"number": one, "start": one * 128, "size": 128} for one in (2, 3, 4)]
    with pytest.raises(CryptpilotError, match="no free number"):
        layout.lay_out(_partitions({}, *others)(FOUND), IN_MBR, None, facts.Roles((1,), gap=True))


@pytest.mark.needs("sfdisk")
def test_no_unified_kernel_image_is_made_of_what_cannot_be_measured(tmp_path: Path) -> None:
    found, volume = apart(tmp_path / "in.img"), dataclasses.replace(IN_MBR, dev="/dev/disk/by-partuuid/1234abcd-03")
    with pytest.raises(CryptpilotError, match="it has an MBR"):
        planned(found, volume, uki=True)


@pytest.mark.needs("sfdisk")
@pytest.mark.parametrize("kind", ["5", "f", "85"])
def test_extended_and_logical_partitions_are_refused(tmp_path: Path, kind: str) -> None:
    text = f"label: dos\nstart=2048, size=2048, type=83\nstart=4096, size=20480, type={kind}\n"
    for more in ("", "start=6144, size=2048, type=83\n"):
        with pytest.raises(CryptpilotError, match="is an extended or a logical one"):
            plan.require_primary(made(tmp_path / "in.img", text + more), "in.img")

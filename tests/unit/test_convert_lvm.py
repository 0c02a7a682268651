"""Roots in logical volumes: which ones are converted, by what lvm and blkid really say, and which are refused."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot import names
from cryptpilot_boot.config import Exec, Volume
from cryptpilot_boot.convert import bootloader, build, facts, layout, logical, mending, plan
from cryptpilot_boot.convert.facts import Content, InstalledDisk, Loader
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.system import block, lvm, mappings, partition_table, programs
from cryptpilot_boot.system.lvm import Logical, Segment
from cryptpilot_boot.system.partition_table import SECTOR
from tests.unit.test_convert_plan import BOOT_UUID, CONTENTS, FOUND, FSTAB, ROOT_UUID, VOLUME, planned

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
GROUP_UUID, VOLUME_UUID = "3Xq1cZ-1zGk-Tn0e-vYjA-Cd2P-mS5b-Rw9uLh", "aB8dEf-gH1j-Kl2m-No3p-Qr4s-Tu5v-Wx6yZa"
IDENTITY = f"{GROUP_UUID}{VOLUME_UUID}".replace("-", "")
FREE: dict[str, Any] = {
    "lv_name": "",
    "lv_uuid": "",
    "lv_size": "0",
    "lv_layout": "unknown",
    "lv_role": "public",
    "segtype": "free",
}
LINEAR: dict[str, Any] = {"lv_layout": "linear", "lv_role": "public", "segtype": "linear"}


def said(*rows: dict[str, Any], group: str = "my-vg", devices: int = 1) -> str:
    """Return what `lvm pvs --segments` of LVM 2.03.16 says of a partition, with the rows as it says them."""
    common = {
        "vg_name": group,
        "vg_uuid": GROUP_UUID,
        "pv_count": str(devices),
        "vg_extent_size": "4194304",
        "pe_start": "1048576",
    }
    return json.dumps({"report": [{"pvseg": [{**common, "seg_start": "0", **row} for row in rows]}]})


def row(start: int, size: int, name: str, of: int = 0, **more: str) -> dict[str, Any]:
    """Return a row for `size` extents from `start` on. of: how many the logical volume has."""
    where = {"pvseg_start": str(start), "pvseg_size": str(size)}
    return {**where, "lv_name": name, "lv_uuid": VOLUME_UUID, "lv_size": str((of or size) * 4194304), **LINEAR, **more}


def free(start: int, size: int) -> dict[str, Any]:
    return {"pvseg_start": str(start), "pvseg_size": str(size), **FREE}


# A volume that was enlarged when other things had the extents behind it.
IN_PARTS = said(row(0, 15, "root", 20), free(15, 5), row(20, 5, "root", 20, seg_start="62914560"), free(25, 24))
PARTS = (Segment(0, 60 * MIB, MIB), Segment(60 * MIB, 20 * MIB, 81 * MIB))
LOGICAL = Logical("my-vg", "root", 80 * MIB, PARTS, IDENTITY)
TABLE = dataclasses.replace(
    FOUND.table,
    partitions=tuple(
        dataclasses.replace(one, type="E6D6D379-F507-44C2-A23C-238F2A3DF928") if one.number == 1 else one
        for one in FOUND.table.partitions
    ),
)
SYSTEM = dataclasses.replace(FOUND.system, fstab=FSTAB.replace(f"UUID={ROOT_UUID}", "/dev/mapper/my--vg-root"))
IN_LVM = InstalledDisk(
    FOUND.image,
    TABLE,
    {**CONTENTS, 1: dataclasses.replace(CONTENTS[1], logical=LOGICAL)},
    SYSTEM,
    {},
)


def test_a_logical_volume_is_read_as_lvm_says_it() -> None:
    assert logical.volumes(1, lvm.parse(IN_PARTS)) == [LOGICAL]
    assert lvm.table(PARTS, "7:1") == "0 122880 linear 7:1 2048\n122880 40960 linear 7:1 165888\n"
    # in whichever order it says it
    rows = json.loads(IN_PARTS)
    rows["report"][0]["pvseg"].reverse()
    assert logical.volumes(1, lvm.parse(json.dumps(rows))) == [LOGICAL]


REFUSED = {
    "no group": (said(free(0, 0), group=""), "of no volume group"),
    "nothing": ('{"report": [{"pvseg": []}]}', "of no volume group"),
    "empty": (said(free(0, 49)), "has no logical volume"),
    "two disks": (said(row(0, 15, "root"), devices=2), "has other disks or partitions"),
    "thin": (
        said(
            row(0, 15, "[pool_tdata]", lv_role="private,thin,pool,data"),
            row(15, 1, "[pool_tmeta]", lv_role="private,thin,pool,metadata"),
            row(16, 1, "[lvol0_pmspare]", lv_role="private,pool,spare"),
            free(17, 32),
        ),
        "logical volume pool_tdata in volume group my-vg of partition 1 is thin",
    ),
    "snapshot": (
        said(
            row(0, 15, "root", lv_role="public,origin,thickorigin"),
            row(15, 5, "snap", lv_role="public,snapshot,thicksnapshot"),
        ),
        "root in volume group my-vg of partition 1 has snapshots",
    ),
    "raid": (
        said(
            row(0, 15, "[root_rimage_0]", lv_role="private,raid,image"),
            row(15, 1, "[root_rmeta_0]", lv_role="private,raid,metadata"),
        ),
        "root_rimage_0 in volume group my-vg of partition 1 is a RAID",
    ),
    "cache": (
        said(
            row(0, 15, "[root_corig]", lv_role="private,cache,origin,cacheorigin"),
            row(15, 5, "[fast_cvol]", lv_layout="cache,cachevol", lv_role="private"),
        ),
        "root_corig in volume group my-vg of partition 1 has a cache",
    ),
    "striped": (said(row(0, 3, "root", lv_layout="striped", segtype="striped")), "is striped"),
    "of another kind": (said(row(0, 3, "root", lv_layout="novel")), "is novel"),
    "hidden": (said(row(0, 3, "[root]", lv_role="private")), "logical volume root in"),
    "a hole": (said(row(0, 15, "root", 20)), "does not lie on the partition as a whole"),
    "a gap": (said(row(0, 15, "root", 20), row(20, 5, "root", 20, seg_start="67108864")), "does not lie on"),
    "twice": (said(row(0, 15, "root"), row(20, 15, "root")), "does not lie on"),
    "odd": (said(row(0, 3, "root", lv_layout="\x1b[2J")), "is  [2J"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_and_whole_is_refused_with_its_reason(name: str) -> None:
    text, reason = REFUSED[name]
    with pytest.raises(CryptpilotError, match="cannot be converted: ") as refusal:
        logical.volumes(1, lvm.parse(text))
    assert reason in refusal.value.what


def test_lvm_is_run_for_that_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By no file of this system, and in no way that could change or activate anything."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def run(argv: list[str], *, env: dict[str, str]) -> tuple[int, str]:
        calls.append((argv, env))
        return 0, IN_PARTS

    monkeypatch.setattr(lvm, "run", run)
    assert logical.volumes(1, lvm.read("/dev/loop0p1")) == [LOGICAL]
    ((argv, env),) = calls
    assert {"--readonly", "--driverloaded=n"} < set(argv)
    configuration = next(one for one in argv if one.startswith("--config="))
    assert 'global_filter=["a|^/dev/loop0p1$|","r|.*|"]' in configuration
    assert env["LVM_SYSTEM_DIR"] == ""


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"report": [{}]}', '{"report": [{"pvseg": [{"vg_name": "x"}]}]}', IN_PARTS.replace('"15"', '"a"')],
)
def test_a_report_of_another_kind_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(lvm, "run", lambda *_, **__: (0, text))
    with pytest.raises(ProgramError, match="its report cannot be read"):
        lvm.read("/dev/loop0p1")


@pytest.mark.parametrize("lacking", ["lvm", "dmsetup"])
def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    monkeypatch.setattr(programs, "is_there", lambda program: program != lacking)
    with pytest.raises(DeviceError, match=f"{lacking} is missing") as refusal:
        lvm.require_programs()
    assert refusal.value.hint.startswith("install ")


@pytest.mark.parametrize("name", ["/dev/my-vg/root", "/dev/mapper/my--vg-root", f"UUID={ROOT_UUID}", "/dev/vda1"])
def test_a_logical_volume_is_known_by_its_names(name: str) -> None:
    assert facts.named(name, TABLE, IN_LVM.contents) == 1
    assert facts.named("/dev/mapper/my-vg-root", TABLE, IN_LVM.contents) is None
    fstab = FSTAB.replace(f"UUID={ROOT_UUID}", name)
    made = planned(dataclasses.replace(IN_LVM, system=dataclasses.replace(SYSTEM, fstab=fstab)))
    assert (made.root, made.logical) == (1, LOGICAL)
    assert mending.fstab(fstab, VOLUME, "") == FSTAB.replace(f"UUID={ROOT_UUID}", "/dev/mapper/root")


def test_the_new_image_has_the_file_system_in_the_volume_and_no_lvm() -> None:
    made = planned(IN_LVM)
    root = made.table.partition(1)
    assert root.size * SECTOR == (80 + 16) * MIB
    assert root.type == partition_table.LINUX
    assert made.kinds[1] == "ext4"
    assert "LVM: logical volume my-vg/root is copied out of it; the new image has no LVM" in made.lines
    assert not [line for line in planned().lines if "LVM" in line]


def test_a_boot_inside_a_logical_volume_moves_as_from_any_root() -> None:
    partitions = tuple(one for one in TABLE.partitions if one.number != 2)
    fstab = "/dev/my-vg/root / ext4 defaults 0 1\n"
    found = dataclasses.replace(
        IN_LVM,
        table=dataclasses.replace(TABLE, partitions=partitions),
        system=dataclasses.replace(SYSTEM, fstab=fstab),
        contents={number: one for number, one in IN_LVM.contents.items() if number != 2},
    )
    made = planned(found)
    assert made.new_boot
    assert made.table.partition(made.boot).end == made.table.partition(1).start
    assert made.loader.install[0] == ("grub-install", "--target=i386-pc", "{disk}")


def test_only_the_root_may_be_in_lvm() -> None:
    contents = {**CONTENTS, 2: dataclasses.replace(CONTENTS[2], logical=Logical("boot", "boot", MIB, ()))}
    fstab = FSTAB.replace(f"UUID={BOOT_UUID}", "/dev/boot/boot")
    found = dataclasses.replace(FOUND, contents=contents, system=dataclasses.replace(FOUND.system, fstab=fstab))
    with pytest.raises(CryptpilotError, match="/boot is in LVM, on partition 2"):
        planned(found)


def test_one_partition_may_be_part_of_lvm() -> None:
    member = Content("LVM2_member")
    assert plan.logical_partition(TABLE, {**CONTENTS, 1: member}) == 1
    assert plan.logical_partition(TABLE, CONTENTS) is None
    with pytest.raises(CryptpilotError, match="partitions 1 and 2 are both part of LVM"):
        plan.logical_partition(TABLE, {**CONTENTS, 1: member, 2: member})
    # what is a boot loader's is not looked into
    with pytest.raises(CryptpilotError, match="partition 15 is an EFI system partition and holds LVM2_member"):
        plan.roles(TABLE, {**CONTENTS, 15: member})
    assert plan.logical_partition(TABLE, {**CONTENTS, 14: member, 15: member}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('GRUB_CMDLINE_LINUX="rd.lvm.lv=my-vg/root rhgb quiet"', 'GRUB_CMDLINE_LINUX="rhgb quiet"'),
        ('GRUB_CMDLINE_LINUX="a rd.lvm.lv=my-vg/root rd.lvm.vg=my-vg b"', 'GRUB_CMDLINE_LINUX="a b"'),
        ("GRUB_CMDLINE_LINUX='a rd.lvm.lv=my-vg/root' # as it was", "GRUB_CMDLINE_LINUX='a ' # as it was"),
        ("GRUB_CMDLINE_LINUX=rd.lvm.vg=my-vg", "GRUB_CMDLINE_LINUX="),
        ("# rd.lvm.lv=a/b\n", "# rd.lvm.lv=a/b\n"),
        ('A="xrd.lvm.lv=a/b rd.lvm=0 rd.lvm.conf=0"', 'A="xrd.lvm.lv=a/b rd.lvm=0 rd.lvm.conf=0"'),
    ],
)
def test_no_initrd_waits_for_a_logical_volume_that_is_gone(text: str, expected: str) -> None:
    assert mending.without_gone(f"X=1\n{text}\nY=2\n") == f"X=1\n{expected}\nY=2\n"


def test_what_would_still_wait_is_seen() -> None:
    text = "menuentry {\n\tlinux\t/vmlinuz root=/dev/mapper/root ro\n\tinitrd\t/initrd.img\n}\n"

    def faults(configuration: str) -> list[str]:
        path = "/boot/grub/grub.cfg"
        return bootloader.faults(Loader(configurations={path: configuration}), VOLUME, [path])

    assert faults(text) == []
    assert faults(text.replace(" ro\n", " ro rd.lvm.vg=my-vg\n")) == [
        "/boot/grub/grub.cfg makes an initrd wait for LVM (rd.lvm.vg=), which is gone"
    ]


def test_a_mapping_of_the_same_name_is_removed_only_if_a_conversion_made_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = Volume("root", "/dev/x", Exec("cat"), tmp_path)
    name = build.source_name(one)
    calls: list[list[str]] = []
    monkeypatch.setattr(lvm, "run", lambda argv, **_: calls.append(argv))
    for uuid, removed in ((f"CRYPTPILOT-SOURCE-{name}", True), ("LVM-abc", False), ("", False)):
        calls.clear()
        there = mappings.Mapping(name, uuid, tmp_path)
        monkeypatch.setattr(mappings, "find", lambda wanted, there=there: there if wanted == name else None)
        if removed:
            build.close_leftover(one)
            assert calls == [["dmsetup", "remove", "--retry", name]]
        else:
            with pytest.raises(DeviceError, match=f"{re.escape(name)} is there, and was not made by a conversion"):
                build.close_leftover(one)
            assert calls == []


def test_the_longest_name_of_a_volume_leaves_room_for_that_of_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: linux/dm-ioctl.h, DM_NAME_LEN and DM_UUID_LEN, with a NUL each."""
    longest = "v" * 100
    assert names.volume(longest) == ""
    assert names.volume(longest + "v") != ""
    name = build.source_name(dataclasses.replace(VOLUME, volume=longest))
    calls: list[list[str]] = []
    device = block.Device("/dev/loop0p1", "/dev/loop0p1", "259:1", "", 0, "")
    monkeypatch.setattr(block, "look_up", lambda _: device)
    monkeypatch.setattr(lvm, "run", lambda argv, **_: calls.append(argv))
    monkeypatch.setattr(mappings, "find", lambda _: None)
    with pytest.raises(DeviceError, match="is gone"), lvm.mapped("/dev/loop0p1", LOGICAL, name):
        pass
    (argv,) = calls
    uuid = next(one for one in argv if one.startswith("--uuid=")).removeprefix("--uuid=")
    assert len(name) < 128
    assert len(uuid) < 129
    assert "--readonly" in argv


def test_all_numbers_are_of_the_table_that_is_known() -> None:
    assert layout.lay_out(IN_LVM, VOLUME, 2, plan.roles(TABLE, IN_LVM.contents)).table.partition(1).name == "root"


def test_a_logical_volume_is_known_by_all_names_that_udev_gives_it() -> None:
    """As root and as swap space. The identifiers are LVM's own, with hyphens in other places."""
    one = logical.volumes(1, lvm.parse(said(row(0, 15, "root"))))[0]
    contents = {**CONTENTS, 1: dataclasses.replace(CONTENTS[1], logical=one)}
    for name in (
        *("/dev/my-vg/root", "/dev/mapper/my--vg-root", "/dev/disk/by-id/dm-name-my--vg-root"),
        f"/dev/disk/by-id/dm-uuid-LVM-{IDENTITY}",
    ):
        assert facts.named(name, TABLE, contents) == 1
    assert facts.named("/dev/disk/by-id/dm-uuid-LVM-", TABLE, contents) is None

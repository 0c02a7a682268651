"""udev's rules, read and not run: which of them may have given a device its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptpilot_boot.system import udev
from cryptpilot_boot.system.udev import Node
from tests.unit.test_images import tree

SOURCE = Path("/etc/udev/rules.d/99-disks.rules")
DISK = Node("vdb", {"ID_SERIAL": "da ta#0", "ID_PATH": "pci-0000:00:05.0", "DEVTYPE": "disk"}, ("disks/data0",))
LV = Node("dm-3", {"DM_NAME": "vg-lv", "DM_VG_NAME": "vg", "DM_LV_NAME": "lv"}, ("vg/lv",))


@pytest.mark.parametrize(
    ("line", "node", "link", "exactness"),
    [
        ('KERNEL=="vd?", SYMLINK+="disks/data0"', DISK, "disks/data0", 11),
        ('KERNEL=="sd?|vdb", SYMLINK="other disks/data0"', DISK, "disks/data0", 11),
        ('KERNEL=="sd?", SYMLINK+="disks/data0"', DISK, "disks/data0", None),
        ('KERNEL=="vd?", SYMLINK+="disks/data1"', DISK, "disks/data0", None),
        ('SUBSYSTEM=="net", SYMLINK+="disks/data0"', DISK, "disks/data0", None),
        ('SUBSYSTEM=="block", SYMLINK+="disks/$attr{serial}"', DISK, "disks/data0", 6),
        ('PROGRAM=="/opt/name %k", SYMLINK+="disks/%c{1}"', DISK, "disks/data0", 6),
        ('SYMLINK+="disks/%c"', DISK, "disks/data0", 6),
        ('SYMLINK+="disk/by-id/virtio-$env{ID_SERIAL}"', DISK, "disk/by-id/virtio-da_ta#0", 25),
        ('SYMLINK+="disk/by-id/virtio-%E{ID_SERIAL}-part%n"', DISK, "disk/by-id/virtio-da_ta#0", None),
        ('SYMLINK+="disk/by-path/$env{ID_PATH}"', DISK, "disk/by-path/pci-0000:00:05.0", 29),
        ('SYMLINK+="$env{DM_VG_NAME}/$env{DM_LV_NAME}"', LV, "vg/lv", 5),
        # a disk has no such properties
        ('SYMLINK+="$env{DM_VG_NAME}/$env{DM_LV_NAME}"', DISK, "disks/data0", None),
        ('SYMLINK+="disks/$env{.NAME}"', DISK, "disks/data0", 6),
        ('SYMLINK+="disks/%k"', DISK, "disks/vdb", 9),
        ('SYMLINK+="100%%$$/%k"', DISK, "100%$/vdb", 9),
        ('# SYMLINK+="disks/data0"', DISK, "disks/data0", None),
        ('SYMLINK-="disks/data0"', DISK, "disks/data0", None),
        ('SYMLINK=="disks/data0", OPTIONS+="link_priority=5"', DISK, "disks/data0", None),
        ('garbage " = KERNEL==', DISK, "disks/data0", None),
        ("", DISK, "disks/data0", None),
    ],
)
def test_a_rule_is_known_by_the_names_it_can_give(line: str, node: Node, link: str, exactness: int | None) -> None:
    rule = udev.parse(line, SOURCE)
    found = udev.makers(link, node, [rule] if rule else [])
    assert [maker.exactness for maker in found] == ([] if exactness is None else [exactness])


def test_the_rules_that_fit_best_are_the_ones(tmp_path: Path) -> None:
    """A rule that may give any name may have given this one, and is not looked for where another spells it out."""
    machine = tree(
        tmp_path,
        **{
            "usr/lib/udev/rules.d/50-any.rules": 'SYMLINK+="%c"\n',
            "usr/lib/udev/rules.d/70-cloud.rules": 'SYMLINK+="disks/$attr{serial}"\n',
            "etc/udev/rules.d/99-disks.rules": 'KERNEL=="vd*", \\\n  SYMLINK+="disks/data0"\n',
        },
    )
    assert [str(one.rule.source) for one in udev.makers("disks/data0", DISK, udev.rules(machine))] == [str(SOURCE)]
    assert [str(one.rule.source) for one in udev.makers("disks/data1", DISK, udev.rules(machine))] == [
        "/usr/lib/udev/rules.d/70-cloud.rules"
    ]


def test_a_file_goes_before_another_of_its_name(tmp_path: Path) -> None:
    machine = tree(
        tmp_path,
        **{
            "usr/lib/udev/rules.d/70-x.rules": 'SYMLINK+="old"\n',
            "etc/udev/rules.d/70-x.rules": 'SYMLINK+="new"\n',
            "usr/lib/udev/rules.d/71-y.rules": 'SYMLINK+="masked"\n',
        },
    )
    (machine / "etc/udev/rules.d/71-y.rules").symlink_to("/dev/null")
    assert [rule.links for rule in udev.rules(machine)] == [("new",)]


def test_programs_are_those_that_the_file_runs_for_the_device(tmp_path: Path) -> None:
    machine = tree(
        tmp_path,
        **{
            "etc/udev/rules.d/99-disks.rules": 'KERNEL=="vd*", IMPORT{program}="name-it --export"\n'
            'KERNEL=="sd*", PROGRAM="/opt/scsi"\nIMPORT{builtin}="blkid"\nPROGRAM=="/opt/name $devnode"\n'
            'IMPORT{program}="$env{DIR}/x"\nSYMLINK+="disks/%c"\n',
            "usr/lib/udev/name-it": "",
        },
    )
    assert udev.programs(SOURCE, DISK, udev.rules(machine)) == ["name-it", "/opt/name"]
    assert udev.has_program(machine, "name-it")
    assert not udev.has_program(machine, "/opt/name")


def test_what_udev_does_not_know_is_not_known(tmp_path: Path) -> None:
    assert udev.node("/dev/null") is None
    assert udev.node(str(tmp_path)) is None
    assert udev.node(str(tmp_path / "absent")) is None
    assert udev.rules(tmp_path) == []

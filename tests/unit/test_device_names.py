"""Which devices an image does not know by the names that the configuration has for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptpilot_boot.config import Otp, Volume
from cryptpilot_boot.images import device_names
from cryptpilot_boot.images.device_names import KnownDevice
from cryptpilot_boot.system import layers, udev
from cryptpilot_boot.system.layers import Layer
from cryptpilot_boot.system.udev import Node
from tests.unit.test_images import tree

RULES = "etc/udev/rules.d/99-disks.rules"
BY_HAND = 'KERNEL=="vd*", SYMLINK+="disks/data0"\n'
COMMON = "usr/lib/udev/rules.d/60-persistent-storage.rules"
BY_ID = 'KERNEL=="vd*", SYMLINK+="disk/by-id/virtio-$env{ID_SERIAL}"\nSYMLINK+="disk/by-path/$env{ID_PATH}"\n'
NODE = Node(
    "vdb", {"ID_SERIAL": "data", "ID_PATH": "pci-5"}, ("disk/by-id/virtio-data", "disk/by-path/pci-5", "disks/data0")
)
LV = Layer(layers.LVM, "vg-data")
STABLE = 'set dev = "/dev/disk/by-id/virtio-data" in /etc/cryptpilot/volumes/data0.toml, or '


def device(dev: str = "/dev/disks/data0", node: Node | None = NODE, below: tuple[Layer, ...] = ()) -> KnownDevice:
    return KnownDevice(Volume("data0", dev, Otp(), Path("/etc/cryptpilot/volumes/data0.toml")), node, below)


def missing(
    tmp_path: Path, one: KnownDevice, here: dict[str, str], there: dict[str, str], modules: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    machine, image = tree(tmp_path / "here", **here), tree(tmp_path / "there", **there)
    return [
        (found.what, found.hint)
        for found in device_names.missing([one], image, modules, {"data0", "below"}, (), machine)
    ]


def test_a_name_given_by_a_rule_that_is_not_in_the_image_is_told_with_what_to_do(tmp_path: Path) -> None:
    [(what, hint)] = missing(tmp_path, device(), {RULES: BY_HAND, COMMON: BY_ID}, {COMMON: BY_ID})
    assert (
        what == f"the volume data0 is late: its name /dev/disks/data0 is given by /{RULES}, which is not in the image"
    )
    carry = f"echo 'install_items+=\" /{RULES} \"' > /etc/dracut.conf.d/90-names.conf, then rebuild it"
    assert hint == STABLE + carry


def test_no_name_is_proposed_that_the_image_does_not_know_either(tmp_path: Path) -> None:
    [(_, hint)] = missing(tmp_path / "a", device(), {RULES: BY_HAND, COMMON: BY_ID}, {COMMON: BY_ID.splitlines()[1]})
    assert hint.startswith('set dev = "/dev/disk/by-path/pci-5" in ')
    [(_, hint)] = missing(tmp_path / "b", device(), {RULES: BY_HAND, COMMON: BY_ID}, {})
    assert hint.startswith("echo ")


CARRIED: dict[str, tuple[KnownDevice, dict[str, str], dict[str, str]]] = {
    "the rule": (device(), {RULES: BY_HAND}, {RULES: BY_HAND}),
    "the rule, in a file of another name": (device(), {RULES: BY_HAND}, {"lib/udev/rules.d/10-x.rules": BY_HAND}),
    "a name of the distribution": (device("/dev/disk/by-id/virtio-data"), {COMMON: BY_ID}, {COMMON: BY_ID}),
    "the kernel's name": (device("/dev/vdb"), {RULES: BY_HAND}, {}),
    "no udev": (device(node=None), {RULES: BY_HAND}, {}),
    "a link that udev did not make": (device("/dev/by-hand"), {RULES: 'SYMLINK+="by-hand"\n'}, {}),
    "no rule can be found": (device(), {COMMON: BY_ID}, {}),
}


@pytest.mark.parametrize("case", CARRIED)
def test_nothing_is_said_where_the_name_is_known_or_nothing_is(tmp_path: Path, case: str) -> None:
    one, here, there = CARRIED[case]
    assert missing(tmp_path, one, here, there) == []


NOT_CARRIED: dict[str, tuple[KnownDevice, dict[str, str], dict[str, str], str]] = {
    "another version of the file": (device(), {RULES: BY_HAND}, {RULES: 'SYMLINK+="disks/data1"\n'}, f"/{RULES}"),
    "a vendor's rule": (
        device("/dev/disk/azure/lun0", Node("sdc", {}, ("disk/azure/lun0",))),
        {"usr/lib/udev/rules.d/66-azure.rules": 'SYMLINK+="disk/azure/lun$env{.LUN}"\n'},
        {COMMON: BY_ID},
        "/usr/lib/udev/rules.d/66-azure.rules",
    ),
    "only one that can give any name": (device(), {RULES: BY_HAND}, {COMMON: 'SYMLINK+="%c"\n'}, f"/{RULES}"),
    "a name of the distribution": (device("/dev/disk/by-id/virtio-data"), {COMMON: BY_ID}, {}, f"/{COMMON}"),
}


@pytest.mark.parametrize("case", NOT_CARRIED)
def test_a_rule_counts_as_carried_only_if_it_gives_the_name(tmp_path: Path, case: str) -> None:
    one, here, there, source = NOT_CARRIED[case]
    [(what, _)] = missing(tmp_path, one, here, there)
    assert f"is given by {source}, which is not in the image" in what


def test_the_program_that_a_rule_calls_has_to_be_carried_too(tmp_path: Path) -> None:
    rule = 'KERNEL=="vd*", PROGRAM="/opt/name-disk %k", SYMLINK+="disks/%c"\n'
    here = {RULES: rule, "opt/name-disk": ""}
    [(what, hint)] = missing(tmp_path / "a", device(), here, {RULES: rule})
    assert f"/{RULES} gives it its name /dev/disks/data0 by /opt/name-disk, which is not in the image" in what
    assert f'install_items+=" /{RULES} /opt/name-disk "' in hint
    assert missing(tmp_path / "b", device(), here, {RULES: rule, "opt/name-disk": ""}) == []
    # a rule may call what this machine does not have either
    assert missing(tmp_path / "c", device(), {RULES: rule}, {RULES: rule}) == []


LVM_HERE = {"usr/lib/dracut/modules.d/90lvm/module-setup.sh": ""}


@pytest.mark.parametrize(
    ("below", "here", "modules", "what", "hint"),
    [
        ((LV,), LVM_HERE, ("base",), "/dev/disks/data0 is a logical volume, and dracut's module lvm", "echo 'add_drac"),
        ((LV,), {}, ("base",), "dracut's module lvm is not in the image", "install dracut's module lvm (lvm2), then"),
        ((LV,), LVM_HERE, ("lvm",), "", ""),
        ((LV, Layer(layers.RAID, "")), LVM_HERE, ("lvm",), "is on a RAID, and dracut's module mdraid", "install "),
        ((Layer(layers.LUKS, "below"),), {}, (), "", ""),
        ((Layer(layers.LUKS, "other"),), {}, (), "is a LUKS disk, and dracut's module crypt", "install "),
    ],
)
def test_what_puts_a_device_together_has_to_be_in_the_image(
    tmp_path: Path, below: tuple[Layer, ...], here: dict[str, str], modules: tuple[str, ...], what: str, hint: str
) -> None:
    found = missing(tmp_path, device(node=None, below=below), here, {}, modules)
    assert len(found) == bool(what)
    for said, step in found:
        assert what in said
        assert step.startswith(hint)
        assert step.endswith("rebuild it")


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("vg-data", (), ""),
        ("vg-data", ("ro", "rd.lvm.lv=vg/root", "rd.lvm.lv=vg/data"), ""),
        ("vg-data", ("rd.lvm.vg=vg",), ""),
        ("vg-data", ("rd.lvm.lv=vg/root",), "add rd.lvm.lv=vg/data to the boot loader's configuration"),
        ("vg-data", ("rd.lvm.vg=v",), "add rd.lvm.lv=vg/data to the boot loader's configuration"),
        ("v--g-da--ta", ("rd.lvm.lv=v-g/da-ta",), ""),
        ("v--g-da--ta", ("rd.lvm.lv=vg/root",), "add rd.lvm.lv=v-g/da-ta to the boot loader's configuration"),
        ("vg-data", ("rd.lvm=0",), "remove rd.lvm=0 from the boot loader's configuration"),
        ("vg-data", ("rd.md=0",), ""),
    ],
)
def test_kernel_parameters_that_keep_a_device_from_being_brought_up_are_told(
    tmp_path: Path, name: str, words: tuple[str, ...], hint: str
) -> None:
    one = device("/dev/vg/data", node=None, below=(Layer(layers.LVM, name),))
    found = list(device_names.missing([one], tmp_path, {"lvm"}, (), words, tmp_path))
    assert [problem.hint for problem in found] == ([hint] if hint else [])


def test_an_image_is_unpacked_only_for_devices_it_may_not_know(tmp_path: Path) -> None:
    rules = udev.rules(tree(tmp_path, **{RULES: BY_HAND, COMMON: BY_ID}))
    for one, worth in (
        (device(), True),
        (device("/dev/disk/by-id/virtio-data"), False),
        (device("/dev/vdb"), False),
        (device(node=None), False),
        (device("/dev/vg/data", below=(LV,)), True),
    ):
        assert device_names.need_an_image([one], rules) is worth


def test_layers_are_found_down_to_a_mapping_that_is_opened_by_itself(tmp_path: Path) -> None:
    """A volume on an LV, on a RAID, on partitions of which one is on multipath; and a LUKS disk on an LV."""
    block = tmp_path / "devices/virtual/block"
    for name, uuid, label, below in (
        ("dm-5", "LVM-abc", "vg-data", ["md0"]),
        ("md0", "", "", ["sda1", "dm-2"]),
        ("dm-2", "part1-mpath-3600", "mpatha1", []),
        ("dm-7", "CRYPT-LUKS2-abc", "other", ["dm-5"]),
    ):
        (block / name / "slaves").mkdir(parents=True)
        for one in below:
            (block / name / "slaves" / one).symlink_to(block / one if one != "sda1" else block / "sda/sda1")
        if uuid:
            (block / name / "dm").mkdir()
            (block / name / "dm/uuid").write_text(f"{uuid}\n")
            (block / name / "dm/name").write_text(f"{label}\n")
    (block / "sda/sda1").mkdir(parents=True)
    (block / "sda/sda1/partition").touch()
    found = list(layers.of_node(block / "dm-5"))
    assert found == [Layer(layers.LVM, "vg-data"), Layer(layers.RAID, ""), Layer(layers.MULTIPATH, "mpatha1")]
    assert list(layers.of_node(block / "dm-7")) == [Layer(layers.LUKS, "other")]
    assert list(layers.of_node(block / "sda/sda1")) == []
    assert layers.layers("/dev/null") == layers.layers(str(tmp_path / "absent")) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/sys/devices/virtual/block/md127", layers.RAID),
        ("/sys/devices/virtual/block/md127/md127p1", layers.RAID),
        ("/sys/devices/virtual/block/nbd0", layers.NBD),
        ("/sys/devices/virtual/block/bcache0", layers.BCACHE),
        ("/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb", layers.ISCSI),
        ("/sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1", layers.NVMF),
        ("/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/vda1", None),
    ],
)
def test_devices_are_known_by_their_place_in_sys(path: str, kind: layers.LayerKind | None) -> None:
    assert [one.kind for one in layers.of_node(Path(path))] == ([kind] if kind else [])

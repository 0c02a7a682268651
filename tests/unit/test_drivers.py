"""Which drivers this machine needs, and whether an image made elsewhere has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.config import Kms, Otp, Volume
from cryptpilot_boot.images import kernel_modules
from cryptpilot_boot.system import block, dracut, drivers

if TYPE_CHECKING:
    from collections.abc import Sequence

PCI = "devices/pci0000:00/0000:00:04.0"


def driven(sys: Path, device: str, module: str) -> Path:
    """Make a device in a sysfs, with a driver that is a module; one that is built in has none."""
    path = sys / device
    path.mkdir(parents=True, exist_ok=True)
    driver = sys / "bus/any/drivers" / f"driver-{module or path.name}"
    driver.mkdir(parents=True, exist_ok=True)
    (path / "driver").symlink_to(driver)
    if module and not (driver / "module").exists():
        (sys / "module" / module).mkdir(parents=True, exist_ok=True)
        (driver / "module").symlink_to(sys / "module" / module)
    return path


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """A disk and a network card at a virtio bus, each; a RAID that is made of the disk's partition; a bridge."""
    sys = tmp_path / "sys"
    driven(sys, PCI, "virtio_pci")
    driven(sys, "devices/pci0000:00", "")
    driven(sys, f"{PCI}/virtio1", "virtio_blk")
    (sys / PCI / "virtio1/block/vda/vda1").mkdir(parents=True)
    (sys / "devices/virtual/block/md0/slaves").mkdir(parents=True)
    (sys / "devices/virtual/block/md0/slaves/vda1").symlink_to(sys / PCI / "virtio1/block/vda/vda1")
    driven(sys, "devices/pci0000:00/0000:00:05.0", "virtio_pci")
    card = driven(sys, "devices/pci0000:00/0000:00:05.0/virtio2", "virtio_net") / "net/eth0"
    card.mkdir(parents=True)
    (card / "device").symlink_to(card.parents[1])
    (sys / "devices/virtual/net/br0").mkdir(parents=True)
    (sys / "class/net").mkdir(parents=True)
    (sys / "class/net/eth0").symlink_to(card)
    (sys / "class/net/br0").symlink_to(sys / "devices/virtual/net/br0")
    return sys


def test_a_disk_needs_the_drivers_of_all_buses_above_it_and_of_all_it_is_made_of(sys: Path) -> None:
    assert drivers.of_block_device(sys / PCI / "virtio1/block/vda/vda1") == {"virtio_blk", "virtio_pci"}
    assert drivers.of_block_device(sys / "devices/virtual/block/md0") == {"virtio_blk", "virtio_pci"}
    assert drivers.of_disk("/dev/null", sys) == drivers.of_disk("/nowhere", sys) == set()


def test_a_network_card_needs_them_too_and_a_bridge_is_none(sys: Path) -> None:
    assert drivers.of_network_cards(sys) == {"eth0": {"virtio_net", "virtio_pci"}}


def test_an_image_made_for_another_machine_lacks_what_this_one_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "installed"
    within = tmp_path / "image/usr/lib/modules/6.1/kernel"
    within.mkdir(parents=True)
    here.mkdir()
    (here / "modules.dep").write_text("k/virtio_net.ko.xz: k/failover.ko.xz\nk/virtio_blk.ko:\nk/failover.ko.xz:\n")
    (here / "modules.builtin").write_text("kernel/virtio_pci.ko\n")
    (within / "virtio-blk.ko").touch()
    monkeypatch.setattr(dracut, "modules_directory", lambda _: here)
    needed = {"virtio_net": "the network card eth0", "virtio_blk": "the disk of root", "virtio_pci": "the disk of root"}
    found = list(kernel_modules.drivers_missing(tmp_path / "image", {**needed, "of_another_kernel": "x"}))
    assert [one.what for one in found] == [
        f"the kernel module {name} of 6.1 is missing; the network card eth0 needs it on this machine"
        for name in ("failover", "virtio_net")
    ]
    assert all(one.hint.endswith("rebuild it") or "reinstall" in one.hint for one in found)


@pytest.mark.parametrize(
    ("there", "network", "found"),
    [
        (["root"], True, {"nvme": "the disk of root", "ena": "the network card eth0"}),
        (["root"], False, {"nvme": "the disk of root"}),
        ([], True, {}),
    ],
)
def test_what_this_machine_needs_is_asked_only_if_the_image_is_for_it(
    monkeypatch: pytest.MonkeyPatch, there: Sequence[str], network: bool, found: dict[str, str]
) -> None:
    """An image builder has other network cards, and none of the disks."""
    monkeypatch.setattr(drivers, "of_disk", lambda dev: {"nvme"} if Path(dev).name in there else set())
    monkeypatch.setattr(drivers, "of_network_cards", lambda: {"eth0": {"ena", "nvme"}})
    monkeypatch.setattr(block, "is_block_device", lambda dev: Path(dev).name in there)
    source = Kms("kst-1", "secret", "{}", "password", "pem") if network else Otp()
    volume = Volume("root", "/dev/root", source, Path("/x/root.toml"), auto_open=True)
    assert kernel_modules.drivers_needed([volume]) == found

"""Debian 11: the initrds its dracut 051 makes. It is a machine of RPMs, on which dnf has installed the package."""

from __future__ import annotations

import pytest

from tests import machines
from tests.boot import luks
from tests.boot.matrix import Bench, Release, Row, require_boot, require_boot_from, require_going_on, require_kind
from tests.lab.tree import clone, kernel_release
from tests.packages.managers import Dnf, typed

RELEASE = "bullseye"


@pytest.mark.matrix
def test_a_machine_without_systemd_in_its_image_boots(release: Release, bench: Bench) -> None:
    require_boot(Row("network-legacy", systemd=False), release, bench)


def test_a_machine_boots_from_the_image_that_an_upgrade_has_rebuilt(release: Release, bench: Bench) -> None:
    """Its root is on a volume: the image from before the upgrade is never booted, and so need not be."""
    row = Row("network-legacy")
    manager = Dnf(clone(release.tree, bench.work / "tree"))
    kernel = kernel_release(manager.tree)
    image = manager.tree / f"boot/initrd.img-{kernel}"
    # what an upgrade keeps to is what dracut is configured with
    (manager.tree / "etc/dracut.conf.d/91-lab.conf").write_text(
        f'hostonly="no"\nadd_dracutmodules+=" {row.network} "\n'
    )
    typed(manager, f"dracut --force /boot/{image.name} {kernel}")
    before = image.read_bytes()
    said = typed(manager, manager.install("2"))
    assert f"/boot/{image.name}: rebuilt and checked" in said
    assert image.read_bytes() != before
    rebuilt = machines.Image(image, said)
    require_kind(manager.tree, rebuilt, row)
    require_boot_from(rebuilt, release, bench)


@pytest.mark.matrix
@pytest.mark.parametrize("systemd", [True, False], ids=["systemd", "no-systemd"])
def test_networkmanager_in_the_main_loop_keeps_no_boot(systemd: bool, release: Release, bench: Bench) -> None:
    """As in Enterprise Linux 8. Debian has the program it takes in another place than dracut looks for it."""
    tree = clone(release.tree, bench.work / "tree")
    for name in ("nm-initrd-generator", "nm-dhcp-helper"):
        (tree / "usr/libexec" / name).symlink_to(f"../lib/NetworkManager/{name}")
    require_going_on(Row("network-manager", systemd=systemd), release, bench, tree)


def test_a_host_only_image_leaves_volumes_to_the_agent(release: Release, bench: Bench) -> None:
    luks.require_volumes_left_alone(release.tree, bench.work, "late", luks.FOREIGN)

"""What dracut puts into an image: what its volumes need, and nothing of the others."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot import luks
from tests.lab.run import LabError
from tests.lab.tree import SHARE, TESTING, clone, in_chroot, root_tree

if TYPE_CHECKING:
    from pathlib import Path


HANDLERS = "systemd-networkd network-manager network-legacy connman"
"""What dracut's network depends on: one of these."""


def listing(tree: Path, image: machines.Image) -> dict[str, str]:
    """Return the modes of the files in an image, by path."""
    lines = in_chroot(tree, ["lsinitrd", f"{SHARE}/{image.path.name}"], share=image.path.parent).splitlines()
    fields = [line.split(maxsplit=8) for line in lines if line[:1] in "-dlc" and len(line.split(maxsplit=8)) == 9]
    return {field[8].split(" -> ")[0]: field[0] for field in fields}


def test_an_image_holds_its_volumes_configuration_for_root_alone(boot_tree: Path, image: machines.Image) -> None:
    files = listing(boot_tree, image)
    assert files["etc/cryptpilot/volumes/root.toml"] == "-rw-------"
    assert "etc/cryptpilot/global.toml" in files
    assert "etc/cryptpilot/volumes/later.toml" not in files
    assert stat.S_IMODE(image.path.stat().st_mode) == 0o600


def test_an_image_holds_the_whole_agent(boot_tree: Path, image: machines.Image) -> None:
    files = listing(boot_tree, image)
    bundle = (boot_tree / "usr/libexec/cryptpilot/manifest.files").read_text().split()
    assert {f"usr/libexec/cryptpilot/{file}" for file in bundle} <= files.keys()
    assert {"usr/bin/cryptpilot", "usr/sbin/cryptsetup", "usr/lib/udev/rules.d/00-cryptpilot.rules"} <= files.keys()


OTP = 'volume = "data0"\ndev = "/dev/vdz"\nauto_open = true\nmakefs = "ext4"\n[encrypt.otp]\n'


@pytest.mark.parametrize("kms", [True, False], ids=["kms", "otp"])
def test_the_network_is_asked_for_only_if_a_volume_needs_it(
    tree: Path, site: machines.Site, tmp_path: Path, *, kms: bool
) -> None:
    """In an image of few modules, without the one that Debian's dracut-network adds to all: nobody else asks."""
    copy = clone(tree, tmp_path / "tree")
    machines.configure(copy, {"root": machines.volume_file(site) if kms else OTP})
    options = ["--modules", "base cryptpilot", "--omit", "ifcfg"]
    files = listing(copy, machines.make_image(copy, tmp_path / "initrd.img", *options))
    network = {
        "usr/lib/systemd/systemd-networkd",
        "usr/lib/systemd/network/zz-cryptpilot-dhcp.network",
        "etc/cmdline.d/95cryptpilot.conf",
    }
    assert network & files.keys() == (network if kms else set())
    assert ("usr/sbin/mkfs.ext4" in files) is not kms


@pytest.mark.parametrize("disks", [("late", "swap", luks.FOREIGN), ("late", "swap")], ids=["beside another", "alone"])
def test_a_host_only_image_leaves_volumes_to_the_agent(tree: Path, tmp_path: Path, disks: tuple[str, ...]) -> None:
    """What is swap on a volume that has another UUID at each boot, dracut would wait for until it gives up."""
    luks.require_volumes_left_alone(tree, tmp_path, *disks)


def test_an_unusable_configuration_fails_the_image(tree: Path, tmp_path: Path) -> None:
    copy = clone(tree, tmp_path / "tree")
    machines.configure(copy, {"root": 'volume = "root"\n'})
    with pytest.raises(LabError, match=r'root\.toml: missing key "dev"(?s:.)*no image is made'):
        machines.make_image(copy, tmp_path / "initrd.img")
    assert not (tmp_path / "initrd.img").exists()


def test_an_image_that_could_not_reach_kms_is_not_made(tree: Path, tmp_path: Path) -> None:
    """By itself, dracut would leave the agent out and make the image all the same."""
    copy = clone(tree, tmp_path / "tree")
    shutil.rmtree(copy / "usr/lib/dracut/modules.d/40network")
    (copy / "etc/dracut.conf.d/11-ifcfg.conf").unlink()
    with pytest.raises(LabError, match="dracut has no network module"):
        machines.make_image(copy, tmp_path / "initrd.img")
    assert not (tmp_path / "initrd.img").exists()


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", TESTING])
def test_an_image_whose_dracut_omits_what_the_network_depends_on_is_not_made(
    suite: str, site: machines.Site, tmp_path: Path
) -> None:
    """By itself, dracut would leave the agent out, in the image that apt makes for a new kernel, say."""
    copy = machines.install(clone(root_tree(suite), tmp_path / "tree"))
    machines.configure(copy, {"root": machines.volume_file(site)})
    for path in (copy / "etc/dracut.conf.d").glob("*ifcfg*"):
        path.unlink()
    with pytest.raises(LabError, match=r"cryptpilot.* cannot be (found or )?installed"):
        machines.make_image(copy, tmp_path / "initrd.img", "--omit", f"ifcfg {HANDLERS}")
    assert not (tmp_path / "initrd.img").exists()


def test_an_image_without_systemd_that_would_have_no_network_is_not_made(tree: Path, tmp_path: Path) -> None:
    copy = clone(tree, tmp_path / "tree")
    (copy / "usr/sbin/dhclient").unlink()
    with pytest.raises(LabError, match="network without systemd takes dhclient and arping"):
        machines.make_image(copy, tmp_path / "initrd.img", "--omit", "systemd systemd-initrd dracut-systemd")
    assert not (tmp_path / "initrd.img").exists()

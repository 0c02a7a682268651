"""An image with initramfs-tools, as Debian's own cloud images are, gets dracut and cryptpilot's package, and boots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.boot.conversion import CONVERT, FROM_SECRET, LEFT_BEHIND, Row, Workshop, boot
from tests.boot.stock import LACKING, Stock
from tests.lab.cache import cached
from tests.lab.disk import sha256
from tests.lab.run import run
from tests.packages.made import deb_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

STOCK = Stock("ext4", "", initramfs=True)
SHOW = """
out=$(losetup --find --show --partscan --read-only out.img)
cryptsetup open --readonly --key-file=/run/key ${out}p1 opened
mount -t ext4 -o ro,noload /dev/mapper/opened /mnt
chroot /mnt dpkg --audit
chroot /mnt dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n' cryptpilot dracut initramfs-tools
chroot /mnt dpkg --verify cryptpilot
"""
"""Shell lines that show what packages there are in what was converted, and whether they are whole."""


def packages(tree: Path) -> Path:
    """Return a directory with the packages that a tree lacks, from its own distribution; shared and cached."""

    def make(path: Path) -> None:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (path / name).mkdir(parents=True)
        options = {
            "Dir::State": path / "state",
            "Dir::State::status": tree / "var/lib/dpkg/status",
            "Dir::Cache": path / "cache",
            "Dir::Etc::sourcelist": tree / "etc/apt/sources.list",
            "Dir::Etc::sourceparts": tree / "etc/apt/sources.list.d",
            "APT::Sandbox::User": "root",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        run(["apt-get", *words, "update"], timeout=300)
        download = ["install", "--yes", "--download-only", "--no-install-recommends"]
        run(["apt-get", *words, *download, *LACKING], timeout=300)

    return cached("packages-lacking", [tree.name, *LACKING], make) / "cache/archives"


@pytest.mark.matrix
def test_an_image_with_initramfs_tools_gets_dracut_and_the_package_of_cryptpilot(
    workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    before = sha256(workshop.image(STOCK))
    debs = [*sorted(packages(STOCK.tree).glob("*.deb")), deb_of("1")]
    (workshop.share / "debs").mkdir()
    run(["cp", *debs, workshop.share / "debs"])
    given = " ".join(f"--package debs/{path.name}" for path in debs)
    result = workshop.run(
        f"""
! {CONVERT} 2> /run/refused; grep "has no /usr/bin/dracut" /run/refused
{CONVERT} {given}
rm -r debs
{LEFT_BEHIND}
echo "== packages"
{FROM_SECRET}{SHOW}"""
    ).check()
    assert sha256(workshop.share / "in.img") == before
    said, rest = result.stdout.split("== left behind\n")
    assert f"root: packages: {debs[0].name}" in said
    left, there = rest.split("== packages\n")
    assert left.split() == ["==", "files", "in.img", "out.img", "secret"]
    assert {"cryptpilot installed", "dracut installed"} <= set(there.splitlines())
    assert "initramfs-tools installed" not in there
    boot(Row(STOCK), workshop, network, tmp_path / "booted")

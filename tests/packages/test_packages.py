"""The packages, installed for real by the distributions' own programs: dnf in a machine of RPMs, apt in Debian."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Union

import pytest

from buildlib import manifest
from buildlib.base import ROOT
from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.run import LabError
from tests.lab.tree import kernel_release
from tests.packages import made
from tests.packages.managers import Apt, Dnf, typed

if TYPE_CHECKING:
    from collections.abc import Callable

Manager = Union[Dnf, Apt]
VOLUME = """\
volume = "data"
dev = "/dev/disk/by-id/virtio-data"
auto_open = true
makefs = "ext4"
[encrypt.otp]
"""
AT_WORK = "/var/tmp/cryptpilot-*/dracut.*/initramfs/usr/libexec/cryptpilot"  # noqa: S108 - on the machine
"""What is there while dracut is at work on a new image."""
SMALL = """\
hostonly=no
dracutmodules+=" base systemd cryptpilot "
compress="gzip -1"
do_strip=no
"""
"""What keeps images small, and dracut quick."""
SETTINGS = "[boot]\ntimeout = 77\n"


def require_whole(tree: Path) -> None:
    """Fail unless the bundle in a tree is as its manifest has it."""
    subprocess.run([sys.executable, ROOT / "build.py", "verify", tree / "usr/libexec/cryptpilot"], check=True)


def lines_of_ours(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("cryptpilot:")]


GLIBC = {"bullseye": 31, "bookworm": 36, "trixie": 41, "forky": 41}
"""The minor version of the glibc that each release of Debian has."""


def least_glibc() -> int:
    """Return the minor version that the bundle needs: a release before it is none that the package can be for."""
    table = manifest.load(made.BUNDLE)
    return int(table["minimum_versions"]["GLIBC"].partition(".")[2])


MACHINES: dict[str, Callable[[Path], Manager]] = {
    "dnf": Dnf.machine,
    **{suite: partial(Apt.machine, suite=suite) for suite in GLIBC},
}


@pytest.mark.parametrize("name", MACHINES)
def test_it_is_installed_and_enables_nothing_and_provides_nothing(lab: None, tmp_path: Path, name: str) -> None:  # noqa: ARG001
    """Installed, seen to run, removed: where no volume is configured, without a word of cryptpilot's."""
    manager = MACHINES[name](tmp_path / "tree")
    if GLIBC.get(name, 99) < least_glibc():
        with pytest.raises(LabError, match="Depends: libc6"):
            typed(manager, manager.install("1"))
        return
    said = typed(manager, manager.install("1"))
    assert lines_of_ours(said) == []
    assert typed(manager, "cryptpilot --version").startswith("cryptpilot 0.")
    require_whole(manager.tree)
    assert typed(manager, manager.verify) == ""
    assert typed(manager, "systemctl is-enabled cryptpilot.service || :").strip() == "disabled"
    assert typed(manager, "cryptpilot show") == "No volumes are configured in /etc/cryptpilot/volumes.\n"
    modes = "stat --format='%a %U %n' /etc/cryptpilot /etc/cryptpilot/volumes /etc/cryptpilot/global.toml"
    assert [line.split()[0] for line in typed(manager, modes).splitlines()] == ["700", "700", "600"]
    said = typed(manager, manager.remove)
    assert lines_of_ours(said) == []
    left = [path for path in (manager.tree / "usr").rglob("*cryptpilot*") if "doc" not in path.parts]
    assert left == []


def image_with_agent(manager: Manager) -> Path:
    """Configure a volume and have dracut make the kernel's image; return its path."""
    machines.configure(manager.tree, {"data": VOLUME}, SETTINGS)
    (manager.tree / "etc/dracut.conf.d/99-lab.conf").write_text(SMALL)
    kernel = kernel_release(manager.tree)
    typed(manager, f"dracut --force /boot/initrd.img-{kernel} {kernel}")
    return manager.tree / f"boot/initrd.img-{kernel}"


def image_without_agent(manager: Manager) -> Path:
    """Put a second kernel there, with an image that is not cryptpilot's business."""
    typed(
        manager,
        "mkdir /lib/modules/6.0-other; touch /lib/modules/6.0-other/modules.dep\n"
        "cd /opt; find . -maxdepth 0 | cpio --quiet -o -H newc | gzip > /boot/initrd.img-6.0-other",
    )
    return manager.tree / "boot/initrd.img-6.0-other"


@pytest.mark.parametrize("kind", ["dnf", pytest.param("bookworm", marks=pytest.mark.matrix)])
def test_upgrades_keep_an_image_that_boots(lab: None, tmp_path: Path, kind: str) -> None:  # noqa: ARG001
    """On a full /boot, cut off at two moments, and then the one that goes well, which rebuilds the image."""
    manager = MACHINES[kind](tmp_path / "tree")
    typed(manager, manager.install("1"))
    image, other = image_with_agent(manager), image_without_agent(manager)
    before, others = image.read_bytes(), other.read_bytes()

    # as full as it may be: the image fits, and no second one
    full = (
        "mkdir /run/boot; cp -a /boot/initrd* /run/boot; size=$(( $(du -sk /run/boot | cut -f1) + 2048 ))\n"
        "mount -t tmpfs -o size=${size}k tmpfs /boot; cp -a /run/boot/* /boot"
    )
    said = typed(manager, f"{full}\n{manager.again}\ncmp /boot/{image.name} /run/boot/{image.name}; ls -A /boot")
    [line] = lines_of_ours(said)
    assert line.startswith(
        f"cryptpilot: warning: /boot/{image.name} was not rebuilt: the new one is made beside it, which"
    )
    assert line.endswith("this machine boots with the image and the cryptpilot it booted with before")
    assert said.splitlines()[-2:] == sorted([other.name, image.name])

    # the power goes, first while files are put in place and then while dracut is at work
    upgrade = manager.install("2")
    for moment in (manager.unpacking, AT_WORK):
        cut = f"{upgrade} > /run/said 2>&1 & n=0; until compgen -G '{moment}' > /dev/null; do sleep 0.02; n=$((n + 1));"
        said = typed(manager, f"{cut} [ $n -lt 6000 ] || {{ cat /run/said; exit 1; }}; done")
        assert image.read_bytes() == before
        time.sleep(1.1)  # rpm names what it unpacks after the second, and does not take what a transaction of it left
        if isinstance(manager, Apt):
            upgrade = f"dpkg --configure --pending; {upgrade}"
        elif moment != manager.unpacking:
            upgrade = manager.again  # what was cut off was the last of it
    (image.with_name(f"{image.name}.cryptpilot-new")).write_bytes(b"half")
    said = typed(manager, upgrade)
    assert f"/boot/{image.name}: rebuilt and checked" in said
    assert lines_of_ours(said) == []
    assert typed(manager, manager.version).endswith("-2")
    require_whole(manager.tree)
    assert image.read_bytes() != before
    assert other.read_bytes() == others
    assert sorted(path.name for path in image.parent.glob("init*")) == sorted([other.name, image.name])
    assert (manager.tree / "etc/cryptpilot/global.toml").read_text() == SETTINGS
    typed(manager, f"cryptpilot initrd check --kernel {image.name.partition('-')[2]}")

    # what is broken is one line, and no package manager fails for it
    (manager.tree / "etc/cryptpilot/volumes/data.toml").write_text("volume = \n")
    said = typed(manager, manager.again)
    assert len(lines_of_ours(said)) == 1
    assert "/etc/cryptpilot/volumes/data.toml: not valid TOML" in lines_of_ours(said)[0]
    typed(manager, manager.remove)
    assert (manager.tree / "etc/cryptpilot/volumes/data.toml").exists()


def test_a_removal_warns_where_the_root_is_on_a_volume(lab: None, tmp_path: Path, site: machines.Site) -> None:  # noqa: ARG001
    manager = Dnf.machine(tmp_path / "tree")
    typed(manager, manager.install("1"))
    machines.configure(manager.tree, {machines.ROOT: machines.volume_file(site)})
    disk = Disk(blank_disk(tmp_path / "root.img", 64 << 20), machines.ROOT)
    script = f"""
cryptpilot init {machines.ROOT} --yes; cryptpilot open {machines.ROOT}
/usr/libexec/cryptpilot-package removing; echo "elsewhere: $?"
mount /dev/mapper/{machines.ROOT} /mnt
for place in dev etc proc run sys usr var; do mkdir /mnt/$place; mount --rbind /$place /mnt/$place; done
for link in bin sbin lib lib64; do ln -s usr/$link /mnt/$link; done
chroot /mnt rpm --erase cryptpilot; echo "removed: $?"
[ -b /dev/mapper/{machines.ROOT} ] && mountpoint -q /mnt && echo "still open"
"""
    result = machines.run_with_kms(site, manager.tree, script, disks=[disk], timeout=180).check()
    [warning] = lines_of_ours(result.stderr)
    assert warning.startswith("cryptpilot: warning: / is on the volume root: the next initrd image"), result
    for line in ("elsewhere: 0", "removed: 0", "still open"):
        assert line in result.stdout.splitlines(), result

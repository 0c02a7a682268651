"""Ordinary images are converted, and boot by their boot loader from a root that is unlocked from KMS.

Converting takes what user-mode Linux has: device-mapper, and loop devices with partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot import stock
from tests.boot.stock import Stock
from tests.boot.test_root import require_no_secret
from tests.lab import qemu
from tests.lab.disk import Disk, sha256
from tests.lab.run import run
from tests.lab.tree import SHARE
from tests.lab.uml import UmlResult, run_uml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

DEV = "/dev/disk/by-partlabel/root"
LEFT_BEHIND = """
echo "== left behind"
losetup --list --noheadings --output BACK-FILE
ls /dev/mapper | grep -v control || true
grep -E ' (ext4|xfs|vfat) | /run/cryptpilot/convert ' /proc/mounts || true
ls -A /srv
"""
"""Shell lines that show what a conversion could have left."""
CHANGED = ("boot", "etc/cryptpilot", "etc/fstab", "etc/default/grub.d", "etc/systemd/system/", "var/", "usr/")
"""What is other files, in a converted image, than before; of those below usr and var see the test."""


@dataclass(frozen=True)
class Row:
    """An image, and what becomes of it."""

    stock: Stock
    uefi: bool = False
    integrity: bool = False

    def __str__(self) -> str:
        words = [str(self.stock), "uefi" if self.uefi else "bios", "integrity" if self.integrity else ""]
        return "-".join(filter(None, words))


ROWS = (
    Row(Stock("ext4", "ext4")),
    Row(Stock("ext4", "ext4"), uefi=True),
    Row(Stock("ext4", "")),
    Row(Stock("ext4", ""), uefi=True),
    Row(Stock("xfs", "ext4"), uefi=True),
    Row(Stock("xfs", "")),
    Row(Stock("ext4", ""), integrity=True),
)


@pytest.fixture(scope="module")
def converter(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A machine that converts images."""
    return machines.installed_tree(tmp_path_factory.mktemp("converter") / "tree", stock.PACKAGES)


@dataclass(frozen=True)
class Workshop:
    """Converts images. share: where they are, seen by the machine."""

    site: machines.Site
    tree: Path
    share: Path

    def image(self, kind: Stock, name: str = "in.img") -> Path:
        """Put an image of a kind there."""
        path = self.share / name
        run(["cp", "--sparse=always", stock.image(kind), path])
        return path

    def run(self, script: str, *, integrity: bool = False, timeout: float = 1200) -> UmlResult:
        """Run a script on a machine that has a root volume configured, and its secret in a file."""
        volume = machines.volume_file(self.site, dev=DEV).replace('makefs = "ext4"', f"integrity = {integrity}".lower())
        machines.configure(self.tree, {machines.ROOT: volume}, machines.settings(timeout=240))
        (self.share / "secret").write_text(self.site.secret)
        return run_uml(self.tree, script, share=self.share, modules=stock.UML_MODULES, timeout=timeout)


@pytest.fixture
def workshop(site: machines.Site, converter: Path, tmp_path: Path) -> Workshop:
    share = tmp_path / "images"
    share.mkdir()
    return Workshop(site, converter, share)


CONVERT = f"cryptpilot convert {SHARE}/in.img {SHARE}/out.img --volume root --secret-file {SHARE}/secret"
COMPARE = f"""
attach() {{ losetup --find --show --partscan --read-only "$1"; }}
in=$(attach {SHARE}/in.img); out=$(attach {SHARE}/out.img)
base64 -d {SHARE}/secret > /run/key
cryptsetup open --readonly --key-file=/run/key ${{out}}p1 opened
kind=$(blkid -p -s TYPE -o value ${{in}}p1)
options=ro,$([ $kind = xfs ] && echo norecovery,nouuid || echo noload)
for name in UUID LABEL; do blkid -p -s $name -o value ${{in}}p1; blkid -p -s $name -o value /dev/mapper/opened; done
mkdir -p /run/in /run/out
mount -t $kind -o $options ${{in}}p1 /run/in; mount -t $kind -o $options /dev/mapper/opened /run/out
for side in in out; do
    # the names that tar has for sparse files in its own format hold its process number
    {{
        tar --create --directory /run/$side/opt --format=gnu --sparse --numeric-owner kept/sparse
        tar --create --directory /run/$side/opt --exclude=sparse --xattrs --xattrs-include='*' --acls --numeric-owner \\
            --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime kept
    }} | sha256sum
    (cd /run/$side; find . -xdev ! -type d -printf '%P\\t%y %m %U %G %n %s %T@ %l\\n') | sort > /run/$side.list
done
echo "== changed"
diff /run/in.list /run/out.list | sed -n 's/^[<>] \\([^\\t]*\\)\\t.*/\\1/p' | sort -u
"""


@pytest.mark.matrix
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_converted_image_boots_by_its_boot_loader_from_kms(
    row: Row, workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    original = workshop.image(row.stock)
    before = sha256(original)
    result = workshop.run(f"{CONVERT}\n{LEFT_BEHIND}\n{COMPARE}", integrity=row.integrity).check()
    assert sha256(original) == before
    said, rest = result.stdout.split("== left behind\n")
    assert f"root: {SHARE}/out.img is converted" in said
    left, rest = rest.split("secret\n", 1)
    assert left.split() == ["in.img", "out.img"]
    identity, changed = rest.split("== changed\n")
    uuids, labels, kept = (identity.split()[at : at + 2] for at in (0, 2, 4))
    assert uuids[0] == uuids[1]
    assert labels == ["stockroot", "stockroot"]
    assert kept[0] == identity.split()[6]
    for path in changed.splitlines():
        assert path.startswith(CHANGED), path
        assert not path.startswith("usr/") or "cryptpilot" in path, path
    require_booted(row, workshop, network, tmp_path)


def require_booted(row: Row, workshop: Workshop, network: Namespace, work: Path) -> None:
    """Boot what was converted through firmware and boot loader; fail unless its root is the volume."""
    site = workshop.site
    site.behave("ok")
    site.forget_requests()
    report_disk = machines.report_disk(work / "report.img")
    disks = (Disk(workshop.share / "out.img", "system"), report_disk)
    machine = qemu.Machine(None, None, "", disks, netns=network, uefi=row.uefi)
    with machines.running_kms(site, network):
        console = qemu.boot(machine, timeout=600, log=work / "console.log").check().console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert [(request["api"], request["outcome"]) for request in site.requests()] == [("GetSecretValue", "ok")]
    mounts = {line.split()[1]: line.split() for line in report["mounts"].splitlines()}
    assert mounts["/"][2] == row.stock.kind
    assert mounts["/boot"][0].startswith("/dev/vda")
    assert mounts["/boot/efi"][2] == "vfat"
    assert report["failed"] == ""
    require_no_secret(site, {**report, "console": console})


@pytest.mark.matrix
def test_one_that_is_killed_leaves_nothing_once_the_next_has_run(workshop: Workshop) -> None:
    """Nor does one that is interrupted, at once."""
    original = workshop.image(Stock())
    before = sha256(original)
    result = workshop.run(
        f"""
for seconds in {" ".join(map(str, KILLED_AFTER))}; do
    {CONVERT} > /dev/null 2>&1 & sleep $seconds; kill -KILL $! || echo "had ended"; wait $! || true
    {CONVERT} --dry-run > /dev/null
    [ -z "$(losetup --list --noheadings)" ] || {{ losetup --list; ls /dev/mapper; exit 1; }}
    [ "$(ls /dev/mapper)" = control ]
    [ "$(ls -A {SHARE})" = "$(printf 'in.img\nsecret')" ]
done
for seconds in {" ".join(map(str, INTERRUPTED_AFTER))}; do
    {CONVERT} > /dev/null 2>&1 & sleep $seconds; kill -TERM $!; wait $! && exit 1 || [ $? = 130 ]
    {LEFT_BEHIND}
done
""",
        timeout=1500,
    ).check()
    assert sha256(original) == before
    assert "had ended" not in result.stdout
    for left in result.stdout.split("== left behind\n")[1:]:
        assert left.split() == ["in.img", "secret"], left


KILLED_AFTER = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 90)
"""Seconds, in user-mode Linux, where it takes minutes: looking, formatting, copying, dracut."""
INTERRUPTED_AFTER = (2, 5, 10, 15, 30)


def test_what_cannot_be_converted_is_refused_and_nothing_is_left(workshop: Workshop) -> None:
    """Each with its own reason, and the image is as it was."""
    original = workshop.image(Stock())
    before = sha256(original)
    convert = CONVERT.replace(f"{SHARE}/in.img", "$1")
    result = workshop.run(
        f"""
cd {SHARE}
refused() {{ echo "== $2"; {convert} 2>&1 && echo "was converted" || true; rm -f "$1"; }}
changed() {{ cp --sparse=always in.img $1; losetup --find --show --partscan $1; }}
{CONVERT} --dry-run
loop=$(changed luks); cryptsetup luksFormat --batch-mode --type=luks2 --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 \\
    --key-file=secret ${{loop}}p1; losetup -d $loop; refused luks luks
loop=$(changed dirty); mount ${{loop}}p1 /mnt; touch /mnt/file; sync; losetup -d $loop
cp --sparse=always dirty taken; umount /mnt; rm dirty; refused taken dirty
loop=$(changed dracut); mount ${{loop}}p1 /mnt; rm /mnt/usr/bin/dracut; umount /mnt; losetup -d $loop
refused dracut dracut
cp --sparse=always in.img dos; sfdisk --quiet --delete dos; echo label: dos | sfdisk --quiet dos; refused dos dos
truncate -s 1M blank; refused blank blank
qemu-img create -q -f qcow2 -F raw -b in.img backed; refused backed backed
echo no base64! > secret; {CONVERT} 2>&1 || true
{LEFT_BEHIND}"""
    ).check()
    assert sha256(original) == before
    for reason in (
        "root: root: partition 1",
        "partition 1 holds LUKS: the image is encrypted already",
        "the file system of partition 1 was not unmounted",
        "has no /usr/bin/dracut",
        "has a partition table of kind dos",
        "has no partition table",
        "needs a backing file",
        "is not base64",
    ):
        assert reason in result.stdout, result
    assert "was converted" not in result.stdout
    assert result.stdout.split("== left behind\n")[1].split() == ["in.img", "secret"]

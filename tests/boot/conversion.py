"""Converting images, and booting what came of it: what the rows of `test_convert.py` and `test_convert_uefi.py` share.

Converting takes what user-mode Linux has: device-mapper, and loop devices with partitions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests import machines, steps
from tests.boot import enterprise, stock
from tests.boot.evidence import require_no_secret
from tests.boot.measured import logged, measure
from tests.boot.stock import Stock
from tests.lab import qemu, selinux
from tests.lab.disk import Disk, sha256
from tests.lab.run import run
from tests.lab.tree import SHARE, kernel_release
from tests.lab.uml import UmlResult, run_uml
from tests.steps import Step, prints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.lab.net import Namespace

CHANGED = (
    *("boot", "etc/cryptpilot", "etc/fstab", "etc/default/grub", "etc/kernel/cmdline", "etc/systemd/system/"),
    *("var/", "usr/"),
)
"""What is other files, in a converted image, than before; of those below usr and var see `require_kept`."""
FIRST = "6.1.0-1-first"
"""A kernel that an image with two of them has beside its own, and that is older."""


@dataclass(frozen=True)
class Row:
    """An image, and what becomes of it.

    qcow2: IN and OUT are of that format, IN has two kernels, and KMS is asked for the key as it is converted. pairwise:
    whether `make test` has it, too. upgraded: whether apt upgrades its kernel, once it was booted.
    """

    stock: Stock
    uefi: bool = False
    integrity: bool = False
    qcow2: bool = False
    pairwise: bool = False
    upgraded: bool = True

    def __str__(self) -> str:
        words = [str(self.stock), "integrity" if self.integrity else "", "qcow2" if self.qcow2 else ""]
        return "-".join(["uefi" if self.uefi else "bios", *filter(None, words)])


def parameters(rows: Iterable[Row]) -> pytest.MarkDecorator:
    """Return what has a test run for each row, where its time is."""
    marks = {False: [pytest.mark.matrix], True: [pytest.mark.matrix, pytest.mark.pairwise]}
    return pytest.mark.parametrize("row", [pytest.param(row, marks=marks[row.pairwise], id=str(row)) for row in rows])


@dataclass(frozen=True)
class Workshop:
    """Converts images. share: where they are; place: where the machine that converts has it.

    asking: whether that machine reaches KMS; if not it is given the secret in a file.
    """

    site: machines.Site
    tree: Path
    share: Path
    place: str = SHARE
    asking: bool = False

    def image(self, kind: Stock, name: str = "in.img") -> Path:
        """Put an image of a kind there."""
        path = self.share / name
        run(["cp", "--sparse=always", stock.image(kind), path])
        return path

    def of_kms(self, work: Path) -> Workshop:
        """Return one beside a KMS of its own, with the same secret."""
        own = self.site.copied(work / "kms")
        return Workshop(own, self.tree, own.directory, machines.KMS_FILES, asking=True)

    def run(self, script: str, *, integrity: bool = False, dev: str = Stock().dev, timeout: float = 1200) -> UmlResult:
        """Run a script on a machine that has a root volume configured, in the directory of the images."""
        volume = machines.volume_file(self.site, dev=dev).replace('makefs = "ext4"', f"integrity = {integrity}".lower())
        machines.configure(self.tree, {machines.ROOT: volume}, machines.settings(timeout=240))
        script = f"cd {self.place}\n{script}"
        if self.asking:
            return machines.run_with_kms(self.site, self.tree, script, modules=stock.UML_MODULES, timeout=timeout)
        (self.share / "secret").write_text(self.site.secret)
        return run_uml(self.tree, script, share=self.share, modules=stock.UML_MODULES, timeout=timeout)


CONVERT = "cryptpilot convert in.img out.img --volume root --secret-file secret"
LEFT_BEHIND = """
echo "== left behind"
losetup --list --noheadings --output BACK-FILE
ls /dev/mapper | grep -v control || true
grep -E ' (ext4|xfs|vfat) | /run/cryptpilot/convert ' /proc/mounts || true
echo "== files"
ls -A
"""
"""Shell lines that show what a conversion could have left."""
COMPARE = """
echo "== compared"
attach() { losetup --find --show --partscan --read-only "$1"; }
in=$(attach in.img); out=$(attach out.img); old=${in}p1
if [ "$(blkid -p -s TYPE -o value $old)" = LVM2_member ]; then
    # LVM opens what it activates for writing as well
    losetup -d $in; in=$(losetup --find --show --partscan in.img)
    DM_DISABLE_UDEV=1 lvm vgchange --activate y > /dev/null
    old=/dev/mapper/stock--group-root
fi
cryptsetup open --readonly --key-file=/run/key ${out}p1 opened
kind=$(blkid -p -s TYPE -o value $old)
options=ro,$([ $kind = xfs ] && echo norecovery,nouuid || echo noload)
for name in UUID LABEL; do blkid -p -s $name -o value $old; blkid -p -s $name -o value /dev/mapper/opened; done
mkdir -p /run/in /run/out
mount -t $kind -o $options $old /run/in; mount -t $kind -o $options /dev/mapper/opened /run/out
for side in in out; do
    # the names that tar has for sparse files in its own format hold its process number
    {
        tar --create --directory /run/$side/opt --format=gnu --sparse --numeric-owner kept/sparse
        tar --create --directory /run/$side/opt --exclude=sparse --xattrs --xattrs-include='*' --acls --numeric-owner \\
            --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime kept
    } | sha256sum
    (cd /run/$side; find . -xdev ! -type d -printf '%P\\t%y %m %U %G %n %s %T@ %l\\n') | sort > /run/$side.list
done
echo "== changed"
diff /run/in.list /run/out.list | sed -n 's/^[<>] \\([^\\t]*\\)\\t.*/\\1/p' | sort -u
mount -t ext4 -o ro,noload ${out}p2 /run/out/boot
echo "== loaded"
grep -hE '^\\s*(linux|initrd)\\s' /run/out/boot/grub/grub.cfg || true
echo "== more"
"""
OWN_GROUP = f"""
export DM_DISABLE_UDEV=1
truncate -s 32M /run/own; own=$(losetup --find --show /run/own)
lvm vgcreate --quiet {stock.GROUP} $own
lvm lvcreate --quiet --yes --zero n --wipesignatures n --extents 1 --name root {stock.GROUP}
dmsetup table > /run/tables
"""
"""Shell lines by which the machine that converts has a logical volume of the same name as the image."""
OWN_GROUP_STAYS = f"""
dmsetup table | diff /run/tables -
lvm vgremove --quiet --yes {stock.GROUP}; losetup --detach $own
"""
UNLABELLED = f"""
mount -t proc proc /run/out/proc
chroot /run/out setfiles -n -v -e /dev -e /proc -e /sys {selinux.CONTEXTS} / 2>&1
"""
"""Shell lines that show what has another label than the policy says, in a root that is mounted at /run/out.

But for what a machine mounts over: the image that is converted has no labels there.
"""
PREPARE_QCOW2 = f"""
loop=$(losetup --find --show --partscan in.img); mount ${{loop}}p1 /mnt
old=$(ls /mnt/usr/lib/modules)
cp --archive /mnt/usr/lib/modules/$old /mnt/usr/lib/modules/{FIRST}
for name in vmlinuz initrd.img; do cp /mnt/boot/$name-$old /mnt/boot/$name-{FIRST}; done
chroot /mnt depmod {FIRST}
umount /mnt; losetup -d $loop
qemu-img convert -f raw -O qcow2 in.img in.qcow2; sha256sum in.qcow2 > /run/before
"""
CONVERT_QCOW2 = """
cryptpilot convert in.qcow2 out.qcow2 --volume root --recovery-key > /run/recovery
sha256sum --check --quiet /run/before
stat --format='mode %a of %U' out.qcow2
qemu-img info --output=json out.qcow2 | grep -E '"format": "qcow2"' | head -1
qemu-img convert -f qcow2 -O raw out.qcow2 out.img
sfdisk --verify out.img
echo "root: out.img is converted"
"""
FROM_SECRET = "base64 -d secret > /run/key\n"
FROM_RECOVERY_KEY = "tr -d '\\n' < /run/recovery > /run/key\n"
"""Shell lines that put what opens the volume into a file."""


def convert(row: Row, workshop: Workshop) -> None:
    """Convert the image of a row; fail unless all that was in it is in what came of it, and nothing is left over."""
    original = workshop.image(row.stock)
    before = sha256(original)
    options = "--uki" if row.stock.unified else ""
    command = f"{CONVERT} {options}\n"
    if row.stock.lvm:
        command = f"{OWN_GROUP}{command}{OWN_GROUP_STAYS}"
    script = f"{command}{LEFT_BEHIND}\n{FROM_SECRET}{COMPARE}"
    if row.qcow2:
        script = f"{PREPARE_QCOW2}{CONVERT_QCOW2}{LEFT_BEHIND}{FROM_RECOVERY_KEY}{COMPARE}"
    script += f"{UNLABELLED if row.stock.selinux else ''}{enterprise.SHOW if row.stock.entries else ''}"
    result = workshop.run(script, integrity=row.integrity, dev=row.stock.dev).check()
    said, rest = result.stdout.split("== left behind\n")
    left, rest = rest.split("== files\n")
    files, compared = rest.split("== compared\n")
    assert "out.img is converted" in said
    assert left == ""
    if row.qcow2:
        assert "mode 600 of root" in said
        assert '"format": "qcow2"' in said
        assert [request["outcome"] for request in workshop.site.requests()] == ["ok"]
        assert "cryptpilot-new" not in files
    else:
        assert sha256(original) == before
        assert files.split() == ["in.img", "out.img", "secret"]
    compared, rest = compared.split("== loaded\n")
    loaded, more = rest.split("== more\n")
    require_kept(compared)
    if row.stock.entries:
        enterprise.require_mended(more, variable=row.stock.entries == "variable")
    else:
        require_loaded(row, loaded)
        assert more == ""
    require_no_secret(workshop.site, {"output": result.stdout + result.stderr, "console": result.console})


def require_kept(compared: str) -> None:
    """Fail unless a file system and its files are the same but for what has to be changed."""
    identity, changed = compared.split("== changed\n")
    words = identity.split()
    uuids, labels, digests = words[:2], words[2:4], (words[4], words[6])
    assert uuids[0] == uuids[1]
    assert labels == ["stockroot", "stockroot"]
    assert digests[0] == digests[1]
    for path in changed.splitlines():
        assert path.startswith(CHANGED), path
        assert not path.startswith("usr/") or "cryptpilot" in path or enterprise.LINKED.fullmatch(path), path


def require_loaded(row: Row, configuration: str) -> None:
    """Fail unless GRUB starts all kernels, and no other, with the volume as their root and an initrd."""
    lines = [line.split() for line in configuration.splitlines()]
    own = kernel_release(row.stock.tree)
    kernels = {own, FIRST} if row.qcow2 else {own}
    assert {line[1] for line in lines if line[0] == "linux"} == {f"/vmlinuz-{release}" for release in kernels}
    assert {line[2] for line in lines if line[0] == "linux"} == {"root=/dev/mapper/root"}
    assert {line[1] for line in lines if line[0] == "initrd"} == {f"/initrd.img-{release}" for release in kernels}


def boot(row: Row, workshop: Workshop, network: Namespace, work: Path, more: Sequence[Disk] = ()) -> dict[str, str]:
    """Boot what was converted, by firmware and boot loader; fail unless its root is the volume. Return its report."""
    site = workshop.site
    site.behave("ok")
    site.forget_requests()
    work.mkdir()
    report_disk = machines.report_disk(work / "report.img")
    disks = (Disk(workshop.share / "out.img", "system"), *more, report_disk)
    machine = qemu.Machine(None, None, "", disks, netns=network, uefi=row.uefi, tpm=row.stock.unified)
    with machines.running_kms(site, network):
        console = qemu.boot(machine, timeout=1200, log=work / "console.log").check().console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert [(request["api"], request["outcome"]) for request in site.requests()] == [("GetSecretValue", "ok")]
    mounts = {line.split()[1]: line.split() for line in report["mounts"].splitlines()}
    assert mounts["/"][2] == row.stock.kind
    assert mounts["/boot"][0].startswith("/dev/vda")
    assert ("/boot/efi" in mounts) == row.stock.efi
    assert not row.stock.efi or mounts["/boot/efi"][2] == "vfat"
    assert report["failed"] == ""
    # for swap space that is gone, or a system that hibernates there
    assert "Timed out waiting for device" not in console
    assert report["swaps"].splitlines()[1:] == []
    if row.stock.selinux:
        selinux.require_none_of_ours(console, report["journal"])
    require_no_secret(site, {**report, "console": console})
    return report


UNIFIED_BEFORE = [
    Step("What firmware starts is known.", "sha256sum /boot/efi/EFI/BOOT/BOOTX64.EFI > /run/unified"),
]


def unified_after(release: str) -> list[Step]:
    """Return what is done with a unified kernel image once the packages of another kernel are there."""
    return [
        Step("The upgrade has not changed what is measured.", "sha256sum --check --quiet /run/unified"),
        Step(
            "It is made again, of the kernel that apt installed.",
            "cryptpilot image unify",
            prints(rf"starts kernel {re.escape(release)} from now on"),
        ),
    ]


def require_boots(row: Row, workshop: Workshop, network: Namespace, work: Path) -> None:
    """Boot what was converted, have apt upgrade its kernel there, and boot that.

    A unified image stays what it was then, until it is made again by a command in the machine; both are measured.
    """
    if not row.upgraded:
        boot(row, workshop, network, work / "before")
        return
    first, later = kernel_release(row.stock.tree), stock.upgrade_release(row.stock.tree)
    image = workshop.share / "out.img"
    expected = measure(image) if row.stock.unified else {}
    upgrade = [
        *(UNIFIED_BEFORE if row.stock.unified else []),
        Step("The packages are there.", "mount --read-only /dev/disk/by-id/virtio-upgrade /mnt"),
        Step(
            "apt installs another kernel, and its hooks make an initrd and boot it from now on.",
            "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends /mnt/*.deb",
            prints(rf"^Setting up linux-image-{re.escape(later)} "),
        ),
        *(unified_after(later) if row.stock.unified else []),
    ]
    disks = (stock.upgrade_disk(work / "upgrade.img", row.stock.tree), steps.steps_disk(work, upgrade, "root"))
    before = boot(row, workshop, network, work / "before", disks)
    steps.check(upgrade, before)
    assert before["kernel"].strip() == first
    after = boot(row, workshop, network, work / "after")
    assert after["kernel"].strip() == later
    if row.stock.unified:
        assert measure(image) != expected
        require_measured(expected, before)
        require_measured(measure(image), after)


def require_measured(expected: dict[str, Any], report: dict[str, str]) -> None:
    """Fail unless a system's TPM holds what was computed. PCR 11 it extends itself, which the log does not have."""
    values = dict(line.split(":") for line in report["registers"].splitlines())
    assert expected["refused"] == {}
    for number, value in values.items():
        assert expected["pcrs"]["sha256"][number] == value.lower()
    computed = [one["sha256"] for one in expected["events"] if one["pcr"] == 11]
    events = logged("".join(report["measurements"].split()))
    assert computed == [digests["sha256"] for number, digests in events if number == 11]

"""Ordinary images are converted, and boot by their boot loader from a root that is unlocked from KMS.

Converting takes what user-mode Linux has: device-mapper, and loop devices with partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests import machines
from tests.boot import enterprise, stock
from tests.boot.stock import Stock
from tests.boot.test_measure import logged, measure
from tests.boot.test_root import require_no_secret
from tests.lab import qemu, selinux
from tests.lab.disk import Disk, sha256
from tests.lab.run import run
from tests.lab.tree import SHARE, kernel_release
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
CHANGED = (
    *("boot", "etc/cryptpilot", "etc/fstab", "etc/default/grub", "etc/kernel/cmdline", "etc/systemd/system/"),
    *("var/", "usr/"),
)
"""What is other files, in a converted image, than before; of those below usr and var see the test."""


@dataclass(frozen=True)
class Row:
    """An image, and what becomes of it."""

    stock: Stock
    uefi: bool = False
    integrity: bool = False
    options: str = ""

    def __str__(self) -> str:
        words = [str(self.stock), "uefi" if self.uefi else "bios", "integrity" if self.integrity else ""]
        return "-".join(filter(None, words))


IN_LVM = Stock("ext4", "ext4", mbr=True, efi=False, lvm=True)
ROWS = (
    Row(Stock("ext4", "ext4")),
    Row(Stock("ext4", "ext4"), uefi=True),
    Row(Stock("ext4", "")),
    Row(Stock("ext4", ""), uefi=True),
    Row(Stock("xfs", "ext4"), uefi=True),
    Row(Stock("xfs", "")),
    Row(Stock("ext4", ""), integrity=True),
    Row(Stock("ext4", "ext4", unified=True), uefi=True, options="--uki"),
    Row(Stock("ext4", "", mbr=True, efi=False)),
    Row(Stock("ext4", "ext4", mbr=True), uefi=True),
    Row(IN_LVM),
    Row(Stock("ext4", "ext4", entries="variable")),
    Row(Stock("ext4", "", entries="static"), uefi=True),
    Row(Stock("ext4", "", selinux=True)),
)


@pytest.fixture(scope="module")
def converter(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A machine that converts images."""
    return machines.installed_tree(tmp_path_factory.mktemp("converter") / "tree", (*stock.PACKAGES, "binutils"))


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

    def run(self, script: str, *, integrity: bool = False, timeout: float = 1200, dev: str = DEV) -> UmlResult:
        """Run a script on a machine that has a root volume configured, and its secret in a file."""
        volume = machines.volume_file(self.site, dev=dev).replace('makefs = "ext4"', f"integrity = {integrity}".lower())
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
in=$(attach {SHARE}/in.img); out=$(attach {SHARE}/out.img); old=${{in}}p1
if [ "$(blkid -p -s TYPE -o value $old)" = LVM2_member ]; then
    # LVM opens what it activates for writing as well
    losetup -d $in; in=$(losetup --find --show --partscan {SHARE}/in.img)
    DM_DISABLE_UDEV=1 lvm vgchange --activate y > /dev/null
    old=/dev/mapper/stock--group-root
fi
base64 -d {SHARE}/secret > /run/key
cryptsetup open --readonly --key-file=/run/key ${{out}}p1 opened
kind=$(blkid -p -s TYPE -o value $old)
options=ro,$([ $kind = xfs ] && echo norecovery,nouuid || echo noload)
for name in UUID LABEL; do blkid -p -s $name -o value $old; blkid -p -s $name -o value /dev/mapper/opened; done
mkdir -p /run/in /run/out
mount -t $kind -o $options $old /run/in; mount -t $kind -o $options /dev/mapper/opened /run/out
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
mount -o ro,noload ${{out}}p2 /run/out/boot
mount -t proc proc /run/out/proc
chroot /run/out setfiles -n -v -e /proc {selinux.CONTEXTS} / 2>&1
"""
"""Shell lines that show what has another label than the policy says, in a root that is mounted at /run/out."""


TPM = "/sys/class/tpm/tpm0/pcr-sha256"
REPORT_TPM = f"""
loop=$(losetup --find --show --partscan {SHARE}/in.img)
mount ${{loop}}p1 /mnt
mkdir /mnt/etc/systemd/system/lab-report.service.d
cat > /mnt/etc/systemd/system/lab-report.service.d/tpm.conf << 'END'
[Service]
ExecStartPre=/bin/sh -c 'mkdir -p /run/lab-report; cd {TPM}; grep "" 4 5 9 12 > /run/lab-report/registers; \\
    od -An -v -tx1 /sys/kernel/security/tpm0/binary_bios_measurements > /run/lab-report/measurements'
END
umount /mnt
losetup -d $loop
"""
"""Shell lines that have a system report what its TPM holds."""


def require_measured(expected: dict[str, Any], report: dict[str, str]) -> None:
    """Fail unless a system's TPM holds what was computed. PCR 11 it extends itself, which the log does not have."""
    values = dict(line.split(":") for line in report["registers"].splitlines())
    assert expected["refused"] == {}
    for number, value in values.items():
        assert expected["pcrs"]["sha256"][number] == value.lower()
    computed = [one["sha256"] for one in expected["events"] if one["pcr"] == 11]
    events = logged("".join(report["measurements"].split()))
    assert computed == [digests["sha256"] for number, digests in events if number == 11]


@pytest.mark.matrix
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_converted_image_boots_by_its_boot_loader_from_kms(
    row: Row, workshop: Workshop, network: Namespace, tmp_path: Path
) -> None:
    original = workshop.image(row.stock)
    if row.stock.unified:
        workshop.run(REPORT_TPM).check()
    before = sha256(original)
    convert = f"{OWN_GROUP}{CONVERT} {row.options}{OWN_GROUP_STAYS}" if row.stock.lvm else f"{CONVERT} {row.options}"
    more = f"{UNLABELLED if row.stock.selinux else ''}{enterprise.SHOW if row.stock.entries else ''}"
    script = f'{convert}\n{LEFT_BEHIND}\n{COMPARE}\necho "== more"\n{more}'
    result = workshop.run(script, integrity=row.integrity, dev=row.stock.dev).check()
    assert sha256(original) == before
    said, rest = result.stdout.split("== left behind\n")
    assert f"root: {SHARE}/out.img is converted" in said
    left, rest = rest.split("secret\n", 1)
    assert left.split() == ["in.img", "out.img"]
    rest, more = rest.split("== more\n")
    identity, changed = rest.split("== changed\n")
    uuids, labels, kept = (identity.split()[at : at + 2] for at in (0, 2, 4))
    assert uuids[0] == uuids[1]
    assert labels == ["stockroot", "stockroot"]
    assert kept[0] == identity.split()[6]
    for path in changed.splitlines():
        assert path.startswith(CHANGED), path
        assert not path.startswith("usr/") or "cryptpilot" in path or enterprise.LINKED.fullmatch(path), path
    if row.stock.entries:
        enterprise.require_mended(more, variable=row.stock.entries == "variable")
    else:
        assert more == ""
    require_booted(row, workshop, network, tmp_path)


def require_booted(row: Row, workshop: Workshop, network: Namespace, work: Path) -> None:
    """Boot what was converted through firmware and boot loader; fail unless its root is the volume."""
    site = workshop.site
    site.behave("ok")
    site.forget_requests()
    report_disk = machines.report_disk(work / "report.img")
    disks = (Disk(workshop.share / "out.img", "system"), report_disk)
    unified = row.stock.unified
    # of which nothing is written back: what is measured is measured of the image as it was made
    expected = measure(disks[0].path) if unified else {}
    machine = qemu.Machine(None, None, "", disks, netns=network, uefi=row.uefi, tpm=unified)
    with machines.running_kms(site, network):
        console = qemu.boot(machine, timeout=600, log=work / "console.log").check().console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert [(request["api"], request["outcome"]) for request in site.requests()] == [("GetSecretValue", "ok")]
    mounts = {line.split()[1]: line.split() for line in report["mounts"].splitlines()}
    assert mounts["/"][2] == row.stock.kind
    assert mounts["/boot"][0].startswith("/dev/vda")
    assert ("/boot/efi" in mounts) == row.stock.efi
    assert not row.stock.efi or mounts["/boot/efi"][2] == "vfat"
    assert report["failed"] == ""
    if unified:
        require_measured(expected, report)
    if row.stock.selinux:
        selinux.require_none_of_ours(console, report["journal"])
    require_no_secret(site, {**report, "console": console})


@pytest.mark.matrix
def test_one_that_is_killed_leaves_nothing_once_the_next_has_run(workshop: Workshop) -> None:
    """Nor does one that is interrupted, at once. What is read of LVM is a mapping more that could be left."""
    original = workshop.image(IN_LVM)
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
        dev=IN_LVM.dev,
        timeout=1500,
    ).check()
    assert sha256(original) == before
    assert "had ended" not in result.stdout
    for left in result.stdout.split("== left behind\n")[1:]:
        assert left.split() == ["in.img", "secret"], left


KILLED_AFTER = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 90)
"""Seconds, in user-mode Linux, where it takes minutes: looking, formatting, copying, dracut."""
INTERRUPTED_AFTER = (2, 5, 10, 15, 30)


ADD_KERNEL = """
add_kernel() {  # makes a kernel of that release in the system below a directory, as a package lays it out
    cp --archive $1/usr/lib/modules/$old $1/usr/lib/modules/$2
    cp $1/boot/vmlinuz-$old $1/boot/vmlinuz-$2
    chroot $1 depmod $2
}
"""
PREPARE = f"""
loop=$(losetup --find --show --partscan in.img); mount ${{loop}}p1 /mnt
old=$(ls /mnt/usr/lib/modules)
{ADD_KERNEL}
add_kernel /mnt 6.1.0-1-first; cp /mnt/boot/initrd.img-$old /mnt/boot/initrd.img-6.1.0-1-first
umount /mnt; losetup -d $loop
qemu-img convert -f raw -O qcow2 in.img in.qcow2; rm in.img; sha256sum in.qcow2 > /run/before
"""
OPEN_IT = """
stat --format='mode %a of %U' out.qcow2; ls -A
sha256sum --check --quiet /run/before
qemu-img info --output=json out.qcow2 | grep -E '"format": "qcow2"' | head -1
qemu-img convert -f qcow2 -O raw out.qcow2 out.img
sfdisk --verify out.img
loop=$(losetup --find --show --partscan out.img)
tr -d '\\n' < /run/recovery | cryptsetup open --key-file=- ${loop}p1 root && echo "opened by the recovery key"
mount /dev/mapper/root /mnt; mount ${loop}p2 /mnt/boot
for point in dev proc sys; do mount --rbind /$point /mnt/$point; done; mount -t tmpfs none /mnt/run
"""
UPGRADE = """
add_kernel /mnt 6.1.0-99-later
new=6.1.0-99-later
for hook in /etc/kernel/postinst.d/*; do chroot /mnt $hook $new /boot/vmlinuz-$new; done
for kernel in $(ls /mnt/usr/lib/modules); do chroot /mnt cryptpilot initrd check --kernel $kernel; done
echo "== linux"
grep -E '^\\s*(linux|initrd)' /mnt/boot/grub/grub.cfg
"""


@pytest.mark.matrix
def test_qcow2_with_two_kernels_is_converted_by_the_key_of_kms_and_takes_a_third_kernel(
    site: machines.Site, converter: Path, tmp_path: Path
) -> None:
    """The secret is asked for of KMS, once; the recovery key that is printed opens the volume.

    The kernel that comes later is installed as a package does it: by the hooks of dracut and GRUB.
    """
    own = site.copied(tmp_path / "site")
    run(["cp", "--sparse=always", stock.image(Stock("ext4", "")), own.directory / "in.img"])
    volume = machines.volume_file(own, dev=DEV).replace('makefs = "ext4"', "")
    machines.configure(converter, {machines.ROOT: volume}, machines.settings(timeout=240))
    script = f"""
cd {machines.KMS_FILES}
{PREPARE}
cryptpilot convert in.qcow2 out.qcow2 --volume root --recovery-key > /run/recovery
{OPEN_IT}{UPGRADE}"""
    result = machines.run_with_kms(own, converter, script, modules=stock.UML_MODULES, timeout=1500).check()
    for said in ("mode 600 of root", "client_key.json", "opened by the recovery key", '"format": "qcow2"'):
        assert said in result.stdout, result
    assert "cryptpilot-new" not in result.stdout
    assert [request["outcome"] for request in own.requests()] == ["ok"]
    loaded = [line.split() for line in result.stdout.split("== linux\n")[1].splitlines()]
    for release in ("6.1.0-1-first", "6.1.0-99-later", kernel_release(converter)):
        assert ["initrd", f"/initrd.img-{release}"] in loaded
        assert {line[2] for line in loaded if line[1] == f"/vmlinuz-{release}"} == {"root=/dev/mapper/root"}
    assert {line[0] for line in loaded} == {"linux", "initrd"}
    require_no_secret(own, {"output": result.stdout + result.stderr, "console": result.console})


def test_what_cannot_be_converted_is_refused_and_nothing_is_left(workshop: Workshop) -> None:
    """Each with its own reason, and the image is as it was."""
    original = workshop.image(Stock())
    before = sha256(original)
    convert = CONVERT.replace(f"{SHARE}/in.img", "$1")
    result = workshop.run(
        f"""
cd {SHARE}
format() {{ cryptsetup luksFormat --batch-mode --type=luks2 --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 \\
    --key-file=secret "$1"; }}
refused() {{ echo "== $2"; {convert} 2>&1 && echo "was converted" || true; rm -f "$1"; }}
changed() {{ cp --sparse=always in.img $1; losetup --find --show --partscan $1; }}
# left by one that was killed, and closed by the next
draft=.out.img.image.cryptpilot-new; truncate -s 64M $draft; echo "label: gpt
start=2048" | sfdisk --quiet $draft; loop=$(losetup --find --show --partscan $draft)
format ${{loop}}p1; cryptsetup open --key-file=secret ${{loop}}p1 root-converting; losetup -d $loop
{CONVERT} --dry-run
[ ! -e $draft ]; [ ! -e /dev/mapper/root-converting ]; [ -z "$(losetup --list --noheadings)" ]
# of the same name, and of somebody else
truncate -s 32M other; format other; cryptsetup open --key-file=secret other root-converting
cp --sparse=always in.img mine; refused mine mapping
cryptsetup status root-converting | grep "is active"; cryptsetup close root-converting; rm other
loop=$(changed luks); format ${{loop}}p1; losetup -d $loop; refused luks luks
loop=$(changed dirty); mount ${{loop}}p1 /mnt; touch /mnt/file; sync; losetup -d $loop
cp --sparse=always dirty taken; umount /mnt; rm dirty; refused taken dirty
loop=$(changed dracut); mount ${{loop}}p1 /mnt; rm /mnt/usr/bin/dracut; umount /mnt; losetup -d $loop
refused dracut dracut
cp --sparse=always in.img dos; sfdisk --quiet --delete dos; printf 'label: dos\ntype=5\n' | sfdisk --quiet dos
refused dos dos
loop=$(changed lvm); lvm vgcreate --quiet --yes two ${{loop}}p1
for name in root swap; do
    lvm lvcreate --quiet --activate n --zero n --wipesignatures n --extents 9 --name $name two
done
losetup -d $loop; refused lvm lvm
loop=$(changed arm); mount ${{loop}}p1 /mnt; printf '\\267' | dd of=/mnt/usr/bin/systemctl bs=1 seek=18 conv=notrunc
umount /mnt; losetup -d $loop; refused arm arm
truncate -s 1M blank; refused blank blank
qemu-img create -q -f qcow2 -F raw -b in.img backed; refused backed backed
{CONVERT.replace("/secret", "/nothing")} 2>&1 || true
echo no base64! > secret; {CONVERT} 2>&1 || true
{LEFT_BEHIND}"""
    ).check()
    assert sha256(original) == before
    for reason in (
        "root: root: partition 1",
        "root-converting is there, and was not made by a conversion",
        "root-converting is active",
        "partition 1 holds LUKS: the image is encrypted already",
        "the file system of partition 1 was not unmounted",
        "has no /usr/bin/dracut",
        "is an extended or a logical one",
        "volume group two of partition 1 has several logical volumes: root, swap",
        "is for aarch64",
        "has no partition table",
        "needs a backing file",
        "is not base64",
        "cannot be read: No such file",
    ):
        assert reason in result.stdout, result
    assert "was converted" not in result.stdout
    assert result.stdout.split("== left behind\n")[1].split() == ["in.img", "secret"]

"""Ordinary images of Debian with GRUB, partitioned as the distribution's own cloud images are, for BIOS and for UEFI.

Made in user-mode Linux, where there are loop devices with partitions, by the programs an installer uses: sfdisk,
mkfs, grub-install, grub-mkconfig. They boot by their boot loader, and know nothing of cryptpilot. Their kernel is the
last point release's, and apt has a newer one for them: see `upgrade_disk`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from tests import machines
from tests.boot import enterprise
from tests.lab import selinux
from tests.lab.cache import cached, fingerprint
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import MODULES, make_ext4
from tests.lab.run import LabError, run
from tests.lab.tree import TESTING, clone, in_chroot, kernel_release, root_tree
from tests.lab.uml import run_uml

STUB = "systemd-boot-efi"
"""What a unified kernel image is made of; Debian 11 has it in another package."""
PACKAGES = (
    *("grub-pc-bin", "grub-efi-amd64-bin", "grub2-common", STUB),
    # the machine that converts it
    *("fdisk", "qemu-utils", "binutils", "lvm2"),
)
"""What a tree has beside the usual packages: what an image boots by, and what converts it."""
LOADED = (
    *("arch/x86/crypto/aesni-intel", "arch/x86/crypto/crc32", "arch/x86/crypto/sha"),
    *("crypto/af_alg", "crypto/algif_hash", "crypto/algif_skcipher"),
    *("crypto/async_tx", "crypto/authenc.", "crypto/cryptd", "crypto/crypto_simd", "crypto/ecb", "crypto/essiv"),
    *("crypto/gf128mul", "crypto/sha512", "crypto/xor", "crypto/xts"),
    *("drivers/block/loop", "drivers/block/virtio_blk", "drivers/char/hw_random/virtio"),
    *("drivers/md/dm-bufio", "drivers/md/dm-crypt", "drivers/md/dm-integrity", "drivers/md/dm-mod"),
    *("drivers/net/net_failover", "drivers/net/virtio_net", "drivers/virtio/virtio", "net/core/failover"),
    *("fs/fat/", "fs/nls/nls_ascii", "fs/nls/nls_cp437", "fs/nls/nls_iso8859-1.", "fs/nls/nls_utf8", "fs/xfs/"),
    *("lib/libcrc32c",),
)
"""How the paths of the kernel's modules begin that its machines load: dracut starts a program for each it takes."""
FIRMWARE_MODULES = ("drivers/virtio", "drivers/pci")
"""Modules that an initrd needs beside those of a booted system, in other releases than Debian 12."""
UPGRADE = "upgrade"
"""Where a tree has the packages that apt would upgrade its kernel by, and the name of the disk that brings them."""
UPGRADED = ("bookworm", "trixie")
"""Releases whose security archive has a newer kernel than the last point release."""


def _options(suite: str) -> tuple[str, ...]:
    """Return what mmdebstrap is told beside the usual: which modules are installed, and kernels of which archive.

    dpkg keeps to the former for a kernel that comes later, too.
    """
    where = "/usr/lib/modules" if suite == "trixie" else "/lib/modules"
    loaded = LOADED if suite == "bookworm" else (*MODULES, *FIRMWARE_MODULES)
    modules = (
        f"--dpkgopt=path-exclude={where}/*/kernel/*",
        *(f"--dpkgopt=path-include={where}/*/kernel/{start}*" for start in loaded),
    )
    if suite not in UPGRADED:
        return modules
    return (
        *modules,
        # the kernel of the last point release, as if what came later by security updates were yet to come
        f"""--setup-hook=printf 'Package: linux-image-cloud-amd64\nPin: release n={suite}-security\nPin-Priority: -1\n'\
 > "$1/etc/apt/preferences.d/older\"""",
        f"""--customize-hook=rm "$1/etc/apt/preferences.d/older"; mkdir -p "$1/{UPGRADE}/partial"
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install --yes --download-only \
-o Dir::Cache::archives="$1/{UPGRADE}" linux-image-cloud-amd64""",
    )


UNNEEDED = (
    UPGRADE,
    "usr/bin/x86_64-linux-gnu-*",
    "usr/lib/udev/hwdb*",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bash-completion",
    "usr/share/zoneinfo",
    "usr/bin/qemu-*",
    "var/cache/*",
)
"""What an image does well without. Its package database is whole, for apt."""
LACKING = ("dracut", "dracut-network", "cryptsetup-bin")
"""What a system with initramfs-tools does not have of the usual packages."""
TAR = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")
"""With what tar keeps all there is of a file."""
OMITTED = ("crypt", "nvdimm", "lunmask", "resume", "terminfo", "virtiofs", "ifcfg", "memstrack")
"""Modules that the image's dracut leaves out: in user-mode Linux, starting programs is what takes its time.

None that another depends on in a virtual machine, as network does on qemu-net: dracut leaves that out then, and what
depends on it, in the machine that apt upgrades but not where it is converted.
"""
UML_MODULES = ("vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1")
"""What user-mode Linux mounts such images with."""
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
GROUP = "stock-group"
"""A volume group, with a hyphen, which device-mapper doubles."""
LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
IN_LVM_SWAP = f"/dev/mapper/{GROUP.replace('-', '--')}-swap"
SWAP_MB = 40
DISK = "0badcafe"
"""The identifier that a disk with an MBR gets for its volume's sake."""


@dataclass(frozen=True)
class Stock:
    """A layout. kind: of the root's file system; boot: of /boot's, "" where that is inside the root.

    unified: whether there is room for a unified kernel image. mbr: whether that is its partition table, as where there
    is no UEFI; efi: whether there is an EFI system partition all the same. lvm: whether its root is a logical volume.
    entries: "" for GRUB as Debian has it, "variable" or "static" for boot loader entries as Enterprise Linux 8 and 9
    have them. swap: whether there is swap space beside its root, in LVM if that is, and else in a logical partition of
    an MBR, as installers have it. selinux: whether it enforces Debian's policy. initramfs: whether its initrd is of
    initramfs-tools, as in Debian's own cloud images, and neither dracut nor cryptsetup is there. release: of Debian,
    where there are no boot loader entries.
    """

    kind: str = "ext4"
    boot: str = "ext4"
    root_mb: int = 640
    unified: bool = False
    mbr: bool = False
    efi: bool = True
    lvm: bool = False
    entries: str = ""
    selinux: bool = False
    initramfs: bool = False
    swap: bool = False
    release: str = "bookworm"

    def __str__(self) -> str:
        words = [self.kind, "boot-apart" if self.boot else "boot-inside", "unified" if self.unified else ""]
        words += ["mbr" if self.mbr else "", "" if self.efi else "bios-only", "lvm" if self.lvm else ""]
        words += [f"{self.entries}-entries" if self.entries else "", "selinux" if self.selinux else ""]
        words += ["initramfs-tools" if self.initramfs else "", "swap" if self.swap else ""]
        words += ["" if self.release == "bookworm" else self.release]
        return "-".join(filter(None, words))

    @property
    def swaps_apart(self) -> bool:
        """Return whether its swap space is a partition."""
        return self.swap and not self.lvm

    @property
    def dev(self) -> str:
        """Return a name that its root's partition can be given."""
        return f"/dev/disk/by-partuuid/{DISK}-01" if self.mbr else "/dev/disk/by-partlabel/root"

    @property
    def esp(self) -> str:
        """Return the number of the EFI system partition, "" where there is none."""
        return ("3" if self.mbr else "15") if self.efi else ""

    @property
    def suite(self) -> str:
        """Return the release of Debian: boot loader entries are read by GRUB 2.14 alone, of those that there are."""
        return TESTING if self.entries else self.release

    @property
    def esp_mb(self) -> int:
        """Return the MiB of the EFI system partition."""
        return 124 if self.unified else 16

    @property
    def tree(self) -> Path:
        """Return the tree that it is made of, shared and cached: not to be changed."""
        more = [*(selinux.PACKAGES if self.selinux else ()), *(["initramfs-tools"] if self.initramfs else [])]
        options = () if self.suite == TESTING else _options(self.suite)
        packages = [one for one in PACKAGES if one != STUB or self.suite != "bullseye"]
        return root_tree(self.suite, (*packages, *more), options, without=LACKING if self.initramfs else ())

    @property
    def table(self) -> str:
        """Return what sfdisk is told."""
        esp, linux, root, name = ("ef", "83", "83", "") if self.mbr else (ESP, LINUX, ROOT, ', name="boot"')
        rows = ["label: dos"] if self.mbr else ["label: gpt", f"14 : start=2048, size=1MiB, type={BIOS_BOOT}"]
        rows += [f"{self.esp} : size={self.esp_mb}MiB, type={esp}"] if self.efi else []
        rows += [f"2 : size=160MiB, type={linux}{name}"] if self.boot else []
        root = ("8e" if self.mbr else LVM) if self.lvm else root
        rows += [f"1 : size={self.root_mb}MiB, type={root}{', bootable' if self.mbr else ''}"]
        swap = [f"2 : size={SWAP_MB - 4}MiB, type=5", f"5 : size={SWAP_MB - 8}MiB, type=82"]
        rows += swap if self.swaps_apart else []
        return "\n".join(rows)


def root() -> Path:
    """Return the tree of which most images are made, and the machine that converts them: shared, not to be changed."""
    return Stock().tree


def upgrade_release(tree: Path) -> str:
    """Return the release of the kernel that apt upgrades an image's by. tree: that the image is made of."""
    packages = sorted((tree / UPGRADE).glob("linux-image-[0-9]*.deb"))
    if len(packages) != 1:
        raise LabError(f"Debian has {len(packages)} kernels that are newer than the last point release's, not one")
    return packages[0].name.split("_")[0].removeprefix("linux-image-")


def upgrade_disk(path: Path, tree: Path) -> Disk:
    """Make a disk with the packages of that upgrade."""
    return Disk(make_ext4(path, tree / UPGRADE, 64 << 20), UPGRADE, readonly=True)


def prune_modules(tree: Path) -> None:
    """Leave a kernel of Debian testing the modules that its machines load."""
    modules = tree / "usr/lib/modules" / kernel_release(tree)
    kept = modules / "kept"
    for path in [path for pattern in (*MODULES, *FIRMWARE_MODULES) for path in (modules / "kernel").glob(pattern)]:
        place = kept / path.relative_to(modules / "kernel")
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    run(["rm", "-r", modules / "kernel"])
    kept.rename(modules / "kernel")
    in_chroot(tree, ["depmod", kernel_release(tree)])


def system(stock: Stock, destination: Path) -> Path:
    """Make the tree that stock images hold: Debian with a kernel, dracut, cryptsetup and GRUB, and an initrd."""
    tree = clone(stock.tree, destination)
    unneeded = [path for pattern in UNNEEDED for path in sorted(tree.glob(pattern))]
    # with which a machine makes its unified kernel image again
    kept = ("objcopy", "objdump") if stock.unified else ()
    run(["rm", "-r", *(path for path in unneeded if not path.name.endswith(kept))])
    if stock.suite == TESTING:
        prune_modules(tree)
    machines.equip(tree)
    # what would wait, if it were told to
    waiting = {*(["lvm"] if stock.lvm else []), *(["resume"] if stock.swap else [])}
    omitted = [name for name in (*OMITTED, "lvm") if name not in waiting]
    (tree / "etc/dracut.conf.d").mkdir(exist_ok=True)
    (tree / "etc/dracut.conf.d/90-lab.conf").write_text(
        f'compress="gzip -n -1"\nomit_dracutmodules+=" {" ".join(omitted)} "\n'
    )
    # as the installers of distributions whose root is in LVM have it
    waits = f" rd.lvm.lv={GROUP}/root rd.lvm.vg={GROUP}" if stock.lvm else ""
    waits += f" rd.lvm.lv={GROUP}/swap resume={IN_LVM_SWAP}" if stock.lvm and stock.swap else ""
    words = f"console=ttyS0{waits} panic=-1" + (f" {selinux.WORDS}" if stock.selinux else "")
    (tree / "etc/default/grub").write_text(
        'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_TERMINAL="console serial"\n'
        f'GRUB_CMDLINE_LINUX_DEFAULT=""\nGRUB_CMDLINE_LINUX="{words}"\nGRUB_DISABLE_OS_PROBER=true\n'
    )
    _make_kept(tree / "opt/kept")
    release = kernel_release(tree)
    if stock.entries:
        enterprise.lay_out(tree, variable=stock.entries == "variable", boot="" if stock.boot else "/boot")
        return tree
    make_image = ["dracut", "--no-hostonly", "--force", f"/boot/initrd.img-{release}", release]
    in_chroot(tree, ["update-initramfs", "-c", "-k", release] if stock.initramfs else make_image)
    if stock.selinux:
        selinux.enforce(tree)
    return tree


def _make_kept(directory: Path) -> None:
    """Make files of every kind that a copy could lose something of."""
    directory.mkdir(parents=True)
    plain = directory / "plain"
    plain.write_bytes(os.urandom(300_000))
    plain.chmod(0o4751)
    os.chown(plain, 1234, 5678)
    os.utime(plain, ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
    os.link(plain, directory / "hard link")
    (directory / "link").symlink_to("nowhere at all")
    (directory / "line\nbreak").write_text("")
    with (directory / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 33)
        sparse.seek(1 << 32)
        sparse.write(b"in the middle")
    os.mkfifo(directory / "pipe", 0o620)
    os.mknod(directory / "device", 0o020640, os.makedev(1, 3))
    for name, attribute, value in (
        ("capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)),
        ("listed", "system.posix_acl_access", ACL),
        ("noted", "user.note", b"of its own"),
    ):
        (directory / name).write_text(name)
        os.setxattr(directory / name, attribute, value)


# acl(5), as the kernel has it: version 2; the owner rw, user 1234 rwx, the group r, mask rwx, others none
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *one)
    for one in ((1, 6, 0xFFFFFFFF), (2, 7, 1234), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


LVCREATE = "lvm lvcreate --quiet --yes --zero n --wipesignatures n"
MAKE_LVM = f"""
export DM_DISABLE_UDEV=1  # there is none: LVM is to make its devices' nodes itself
lvm vgcreate --quiet {GROUP} ${{loop}}p1
[ -z "$swap" ] || {LVCREATE} --size 32M --name swap {GROUP}
{LVCREATE} --extents 100%FREE --name root {GROUP}
"""


def make(stock: Stock, archive: Path, tree: Path, path: Path) -> None:
    """Make an image at `path` from an archive of `system`, with a tree's programs."""
    more = (160 if stock.boot else 0) + (SWAP_MB if stock.swaps_apart else 0)
    blank_disk(path, (stock.root_mb + more + stock.esp_mb + 4) << 20)
    boot = f"mkfs.{stock.boot} -q /dev/mapper/boot" if stock.boot else ""
    esp = f"${{loop}}p{stock.esp}" if stock.efi else ""
    numbers = ["1", *(["2"] if stock.boot else []), *([stock.esp] if stock.efi else [])]
    root = "/dev/mapper/stock--group-root" if stock.lvm else "${loop}p1"
    swap = (IN_LVM_SWAP if stock.lvm else "${loop}p5") if stock.swap else ""
    to_esp = "chroot /mnt grub-install --target=x86_64-efi --efi-directory=/boot/efi --no-nvram --removable"
    install = f"chroot /mnt grub-install --target=i386-pc $loop\n{to_esp if esp else ''}"
    if stock.entries:
        install = enterprise.install(variable=stock.entries == "variable", boot="" if stock.boot else "/boot")
    script = f"""
sfdisk --quiet --no-reread /dev/ubda << 'END'
{stock.table}
END
loop=$(losetup --find --show --partscan /dev/ubda)
for number in {" ".join(numbers)}; do [ -b ${{loop}}p$number ]; done
{boot.replace("/dev/mapper/boot", "${loop}p2")}
swap={swap}
{MAKE_LVM if stock.lvm else ""}
[ -z "$swap" ] || mkswap $swap > /dev/null
mkfs.{stock.kind} -q -L stockroot {root}
{f"mkfs.vfat {esp} > /dev/null" if esp else ""}
uuid() {{ blkid -p -s UUID -o value "$1"; }}
mount {root} /mnt
{"mkdir /mnt/boot; mount ${loop}p2 /mnt/boot" if stock.boot else ""}
tar -C /mnt {" ".join(TAR)} -xf /dev/ubdb
{f"mkdir -p /mnt/boot/efi; mount {esp} /mnt/boot/efi" if esp else ""}
{{
    echo "{root if stock.lvm else "UUID=$(uuid ${loop}p1)"} / {stock.kind} defaults 0 1"
    {'echo "UUID=$(uuid ${loop}p2) /boot ' + stock.boot + ' defaults 0 2"' if stock.boot else ""}
    {f'echo "UUID=$(uuid {esp}) /boot/efi vfat umask=0077 0 1"' if esp else ""}
    {f'echo "{swap if stock.lvm else "UUID=$(uuid $swap)"} none swap sw 0 0"' if swap else ""}
}} > /mnt/etc/fstab
for point in dev proc sys; do mount --rbind /$point /mnt/$point; done
{install}
mkdir -p /dev/disk/by-uuid
ln -s {root} /dev/disk/by-uuid/$(uuid {root})
chroot /mnt grub-mkconfig -o /boot/grub/grub.cfg
grep -q root={root if stock.lvm else "UUID="} /mnt/boot/grub/grub.cfg
{selinux.LABEL if stock.selinux else ""}
umount --recursive /mnt
{f"lvm vgchange --quiet --activate n {GROUP}" if stock.lvm else ""}
losetup -d $loop
"""
    disks = [Disk(path, "stock"), Disk(archive, "archive", readonly=True)]
    run_uml(tree, script, disks=disks, timeout=300, modules=UML_MODULES).check()


def image(stock: Stock) -> Path:
    """Return an image, shared and cached: not to be changed."""
    # the file systems of an installation are made by its own programs
    tree = root() if stock.suite == TESTING else Stock(release=stock.release).tree
    recipe = [Path(__file__).read_text(), fingerprint(Path(machines.__file__).with_name("guest")), tree.name]
    # what `system` takes from a layout beside its tree
    recipe += [stock.tree.name, str(stock.lvm), str(stock.swap), str(stock.unified)]
    if stock.entries:
        recipe += [Path(enterprise.__file__).read_text(), stock.entries, str(bool(stock.boot))]

    def make_archive_of_system(path: Path) -> None:
        work = path.with_suffix(".work")
        run(["rm", "-rf", work])
        run(["tar", "-C", system(stock, work), *TAR, "--sparse", "-cf", path, "."])
        run(["rm", "-rf", work])

    archive = cached("stock-archive", recipe, make_archive_of_system)
    return cached(f"stock-{stock}", [archive.name, str(stock)], lambda path: make(stock, archive, tree, path))

"""What an image becomes when it is converted, and what is refused; by what sfdisk, blkid and qemu-img really say."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot.config import Exec, Identity, Kms, Otp, Volume
from cryptpilot_boot.convert import bootloader, facts, grub, labels, layout, mending, plan, requirements
from cryptpilot_boot.convert.facts import Content, InstalledDisk, InstalledSystem, Kernel, Loader
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.providers.together import Together
from cryptpilot_boot.providers.tpm2 import Tpm2
from cryptpilot_boot.system import block, disk_image, partition_table
from cryptpilot_boot.system.disk_image import ImageFile
from cryptpilot_boot.system.partition_table import SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

# sfdisk --json of util-linux 2.38, of an image partitioned as Debian's cloud images are, with a /boot apart.
TABLE = """{
   "partitiontable": {
      "label": "gpt",
      "id": "B63F2B5C-2BC2-9C42-BB8F-3B1E8C0F4A11",
      "device": "disk1.img",
      "unit": "sectors",
      "firstlba": 2048,
      "lastlba": 1679326,
      "sectorsize": 512,
      "partitions": [
         {"node": "disk1.img1", "start": 364544, "size": 1310720, "type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
          "uuid": "0C7DB2F6-95A6-4C0D-8F2D-8B8A5C3E7D01"},
         {"node": "disk1.img2", "start": 36864, "size": 327680, "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
          "uuid": "0C7DB2F6-95A6-4C0D-8F2D-8B8A5C3E7D02", "name": "boot"},
         {"node": "disk1.img14", "start": 2048, "size": 2048, "type": "21686148-6449-6E6F-744E-656564454649",
          "uuid": "0C7DB2F6-95A6-4C0D-8F2D-8B8A5C3E7D14", "attrs": "LegacyBIOSBootable GUID:59"},
         {"node": "disk1.img15", "start": 4096, "size": 32768, "type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
          "uuid": "0C7DB2F6-95A6-4C0D-8F2D-8B8A5C3E7D15"}
      ]
   }
}"""
ENCRYPTED = "encrypt.format=aes,encrypt.key-secret=s"
ROOT_UUID = "6d2ab1ba-5dce-4d96-a9b9-f37a5b9d97a4"
BOOT_UUID = "7d2ab1ba-5dce-4d96-a9b9-f37a5b9d97a4"
FSTAB = f"""# /etc/fstab: static file system information.
UUID={ROOT_UUID} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
UUID={BOOT_UUID} /boot ext4 defaults 0 2
UUID=ABCD-1234 /boot/efi vfat defaults 0 0
"""
INSIDE = f"PARTUUID=0c7db2f6-95a6-4c0d-8f2d-8b8a5c3e7d01 / ext4 defaults 0 1\nUUID={BOOT_UUID}0 /data ext4 nofail 0 0\n"
CONFIGURATION = "/boot/grub/grub.cfg"
LOADER = f"\tlinux\t/vmlinuz-6.1 root=UUID={ROOT_UUID} ro console=ttyS0 \n\tinitrd\t/initrd.img-6.1\n"
VOLUME = Volume("root", "/dev/disk/by-partlabel/root", Exec("cat"), Path("/v/root.toml"), auto_open=True)
KMS = dataclasses.replace(VOLUME, encrypt=Kms("kst-x", "secret", "", "", ""))
SYSTEM = InstalledSystem(
    root=1,
    name="Debian GNU/Linux 12 (bookworm)",
    fstab=FSTAB,
    present=frozenset(requirements.LOOKED_FOR)
    - {"/boot/loader/entries", "/etc/kernel/install.conf", "/boot/grub2", bootloader.ENTERPRISE.mkconfig},
    plain=frozenset(requirements.PLAIN_DIRECTORIES),
    kernels=(Kernel("6.1", ("boot/initrd.img-6.1",)),),
    loader=Loader({CONFIGURATION: LOADER}),
    loader_settings='GRUB_CMDLINE_LINUX="console=ttyS0"\n',
    selinux="",
    used=300 << 20,
    boot_used=40 << 20,
    boot_free=110 << 20,
    free=200 << 20,
    efi_directories=("BOOT", "debian"),
)
CONTENTS = {
    1: Content("ext4", ROOT_UUID, "", 4096),
    2: Content("ext4", BOOT_UUID, "", 1024),
    14: Content(),
    15: Content("vfat", "ABCD-1234", "", 512),
}
FOUND = InstalledDisk(ImageFile("raw", 1679360 * SECTOR), partition_table.parse(TABLE), CONTENTS, SYSTEM, {})


def without_boot(found: InstalledDisk = FOUND) -> InstalledDisk:
    """Return the image with its /boot inside the root."""
    partitions = tuple(one for one in found.table.partitions if one.number != 2)
    contents = {number: one for number, one in found.contents.items() if number != 2}
    system = dataclasses.replace(found.system, fstab=INSIDE)
    table = dataclasses.replace(found.table, partitions=partitions)
    return dataclasses.replace(found, table=table, contents=contents, system=system)


def planned(found: InstalledDisk = FOUND, volume: Volume = VOLUME) -> plan.Conversion:
    return plan.make(found, volume, plan.roles(found.table, found.contents))


def test_a_table_is_read_as_sfdisk_says_it() -> None:
    table = partition_table.parse(TABLE)
    assert [one.number for one in table.partitions] == [1, 2, 14, 15]
    assert table.partition(2).name == "boot"
    assert table.partition(14).attributes == "LegacyBIOSBootable GUID:59"
    assert (table.label, table.sector) == ("gpt", 512)


@pytest.mark.needs("sfdisk")
def test_sfdisk_writes_the_table_that_it_is_told(tmp_path: Path) -> None:
    image = tmp_path / "img1"  # a name that ends in a digit: partitions are called otherwise then
    with image.open("wb") as file:
        file.truncate(FOUND.image.size)
    subprocess.run(["sfdisk", "--quiet", image], input="label: gpt\n", text=True, check=True)
    partition_table.write(image, FOUND.table)
    assert partition_table.read(image) == FOUND.table


@pytest.mark.needs("sfdisk")
def test_what_is_no_disk_has_no_table(tmp_path: Path) -> None:
    (tmp_path / "img").write_bytes(bytes(1 << 20))
    assert partition_table.read(tmp_path / "img") is None


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["-f", "raw", "{image}", "1M"], ()),
        (["-f", "qcow2", "{image}", "1M"], ()),
        (["-f", "qcow2", "-F", "raw", "-b", "{base}", "{image}"], ("a backing file",)),
        (["-f", "qcow2", "-o", "data_file={data}", "{image}", "1M"], ("a data file of its own",)),
        (
            ["-f", "qcow2", "--object", "secret,id=s,data=x", "-o", ENCRYPTED, "{image}", "1M"],
            ("a passphrase",),
        ),
    ],
    ids=["raw", "qcow2", "backing", "data", "encrypted"],
)
def test_what_an_image_needs_of_others_is_seen(tmp_path: Path, options: list[str], parts: tuple[str, ...]) -> None:
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    names = {name: str(tmp_path / name) for name in ("image", "base", "data")}
    argv = [one.format(**names) for one in options]
    subprocess.run(["qemu-img", "create", "-q", *argv], check=True)
    found = disk_image.facts(tmp_path / "image")
    assert (found.format, found.size, found.parts) == (argv[1], 1 << 20, parts)


def test_the_root_grows_by_what_the_volume_takes_and_all_else_stays() -> None:
    made = planned()
    old, new = FOUND.table, made.table
    assert [one for one in new.partitions if one.number != 1] == [one for one in old.partitions if one.number != 1]
    root = new.partition(1)
    assert (root.start, root.name, root.uuid) == (old.partition(1).start, "root", old.partition(1).uuid)
    assert root.size - old.partition(1).size == (16 << 20) // SECTOR
    assert made.size >= root.end * SECTOR + (1 << 20)
    assert (made.boot, made.new_boot, made.loader.install, made.kinds) == (2, False, (), {1: "ext4", 2: "ext4"})
    assert (made.whole, made.boot_areas, made.sector_size) == ((14, 15), ((0, 440),), 4096)


def test_a_boot_inside_the_root_gets_a_partition_of_its_own_before_it_and_grub_is_installed_anew() -> None:
    made = planned(without_boot())
    boot, root = made.table.partition(2), made.table.partition(1)
    assert made.new_boot
    assert boot.size * SECTOR == 1 << 30
    assert boot.end == root.start
    assert boot.uuid not in {one.uuid for one in made.table.partitions if one.number != 2}
    assert made.loader.install == (
        ("grub-install", "--target=i386-pc", "{disk}"),
        ("grub-install", "--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram"),
        ("grub-install", "--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram", "--removable"),
    )
    assert planned(without_boot()).table == made.table


def test_a_new_boot_has_room_for_the_initrds_of_all_kernels() -> None:
    kernels = tuple(Kernel(f"6.{number}", ("a",)) for number in range(20))
    made = planned(_system(kernels=kernels)(without_boot()))
    assert made.kernels == tuple(one.release for one in kernels)
    assert made.table.partition(made.boot).size * SECTOR >= SYSTEM.boot_used + 21 * (96 << 20)
    with pytest.raises(CryptpilotError, match="its initrds need"):
        planned(_system(kernels=kernels)(FOUND))


def test_a_partition_can_be_named_by_its_uuid() -> None:
    uuid = "11111111-2222-3333-4444-555555555555"
    made = planned(volume=dataclasses.replace(VOLUME, dev=f"/dev/disk/by-partuuid/{uuid}"))
    assert made.table.partition(1).uuid == uuid
    assert made.table.partition(1).name == ""


def test_integrity_takes_more_room() -> None:
    plain, tags = planned(), planned(volume=dataclasses.replace(VOLUME, integrity=True))
    assert tags.table.partition(1).size > 1.02 * plain.table.partition(1).size
    assert tags.used > tags.table.partition(1).size * SECTOR


def test_sectors_are_no_larger_than_what_the_file_system_writes() -> None:
    contents = {**CONTENTS, 1: Content("xfs", ROOT_UUID, "", 512)}
    found = dataclasses.replace(FOUND, contents=contents)
    assert planned(found).sector_size == 512
    with pytest.raises(CryptpilotError, match="sector_size = 4096"):
        planned(found, dataclasses.replace(VOLUME, sector_size=4096))


def _system(**changes: Any) -> Callable[[InstalledDisk], InstalledDisk]:
    return lambda found: dataclasses.replace(found, system=dataclasses.replace(found.system, **changes))


def _content(number: int, content: Content) -> Callable[[InstalledDisk], InstalledDisk]:
    return lambda found: dataclasses.replace(found, contents={**found.contents, number: content})


def _table(
    change: Callable[[partition_table.Partition], partition_table.Partition],
) -> Callable[[InstalledDisk], InstalledDisk]:
    def changed(found: InstalledDisk) -> InstalledDisk:
        partitions = tuple(map(change, found.table.partitions))
        return dataclasses.replace(found, table=dataclasses.replace(found.table, partitions=partitions))

    return changed


def _lacking(path: str) -> Callable[[InstalledDisk], InstalledDisk]:
    return _system(present=SYSTEM.present - {path})


def _of(number: int, **changes: Any) -> Callable[[InstalledDisk], InstalledDisk]:
    return _table(lambda one: dataclasses.replace(one, **changes) if one.number == number else one)


CONTEXTS = "/etc/selinux/targeted/contexts/files/file_contexts"
REFUSED: dict[str, tuple[Callable[[InstalledDisk], InstalledDisk], str]] = {
    "encrypted": (_content(1, Content("crypto_LUKS")), "partition 1 holds LUKS: the image is encrypted already"),
    "btrfs": (_content(1, Content("btrfs")), "partition 1 holds btrfs, which is not supported: a disk of the host"),
    "swap": (_content(2, Content("swap")), "partition 2 is swap space"),
    "zfs": (_content(1, Content("zfs_member")), "partition 1 holds zfs_member"),
    "nothing": (_content(2, Content()), "partition 2 holds nothing"),
    "esp": (_content(15, Content("ext4")), "partition 15 is an EFI system partition and holds ext4"),
    "unbootable": (
        _table(lambda one: dataclasses.replace(one, type=partition_table.LINUX) if one.number > 2 else one),
        "partition 14 holds nothing",
    ),
    "quoted": (_of(1, name='a"b'), "quotation mark"),
    "not last": (_of(15, start=1676000, size=1000), "not the last one"),
    "other root": (_system(fstab=FSTAB.replace(ROOT_UUID, "0" * 8)), "does not say that / is partition 1"),
    "other boot": (_system(fstab=FSTAB.replace(BOOT_UUID, "0" * 8)), "which is not in the image"),
    "home": (_system(fstab=FSTAB.replace(" /boot ext4", " /home ext4")), "partition 2 is neither the root nor /boot"),
    "dirty": (
        lambda found: dataclasses.replace(found, faults={1: "was not unmounted"}),
        "partition 1 was not unmounted",
    ),
    "no dracut": (_lacking(requirements.DRACUT), "has no /usr/bin/dracut"),
    "no cryptsetup": (_lacking(requirements.CRYPTSETUP), "has no /usr/sbin/cryptsetup"),
    "no grub": (_lacking("/boot/grub"), "has neither /boot/grub nor /boot/grub2"),
    "no mkconfig": (_lacking(bootloader.DEBIAN.mkconfig), "has no /usr/sbin/grub-mkconfig"),
    "no configuration": (_system(loader=Loader()), "neither /boot/grub/grub.cfg in it boots Linux"),
    "no settings": (_lacking("/etc/default/grub"), "has no /etc/default/grub"),
    "not GRUB's": (_system(present=SYSTEM.present | {"/boot/loader/entries"}), "has /boot/loader/entries, and GRUB"),
    "links": (_system(plain=SYSTEM.plain - {"/etc"}), "/etc in it is not a directory"),
    "selinux": (_system(selinux="# SELINUX=disabled\nSELINUX=enforcing\n"), "SELinux and no /etc/selinux/targeted/"),
    "no setfiles": (
        _system(selinux="SELINUX=permissive", contexts=CONTEXTS, present=SYSTEM.present - {labels.SETFILES}),
        "it has SELinux and no /usr/sbin/setfiles",
    ),
    "odd policy": (_system(selinux="SELINUX=enforcing\nSELINUXTYPE=../../x\n"), "names a policy in an unknown way"),
    "no kernel": (_system(kernels=()), "no kernel"),
    "no image": (_system(kernels=(Kernel("6.1", ()),)), "kernel 6.1 in it has no initrd"),
    "unified": (_system(kernels=(Kernel("6.1", ("a",), unified=True),)), "unified"),
    "root=": (_system(loader_settings='GRUB_CMDLINE_LINUX="root=/dev/vda1"'), "sets root="),
    "full root": (_system(free=20 << 20), "the root's file system has 20 MiB left"),
    "odd kernel": (_system(kernels=(Kernel("6.1\x1b[2J", ("a",)),)), "which is not the name of a kernel"),
    "root twice": (_system(fstab=f"{FSTAB}UUID={ROOT_UUID} / ext4 ro 0 0\n"), "mounts / by more than one line"),
    "root by a detour": (_system(fstab=FSTAB.replace(" / ", " /boot/.. ")), "by one that is not plain"),
    "boot on the ESP": (_system(fstab=FSTAB.replace(BOOT_UUID, "ABCD-1234")), "mounts /boot from partition 15"),
    "boot on the root": (_system(fstab=FSTAB.replace(BOOT_UUID, ROOT_UUID)), "mounts /boot from partition 1,"),
    "overlap": (_of(2, size=327681), "partitions 2 and 1 overlap"),
    "cut off": (_of(1, size=1400000), "ends beyond the end of the disk"),
    "full boot": (_system(boot_free=20 << 20), "/boot has 20 MiB left"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_with_its_reason(name: str) -> None:
    change, reason = REFUSED[name]
    with pytest.raises(CryptpilotError, match="cannot be converted: ") as refusal:
        planned(change(FOUND))
    assert reason in refusal.value.what


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encrypt": Otp()}, "temporary"),
        ({"encrypt": Tpm2("/dev/vda2")}, "the key of volume .* is sealed to a TPM"),
        ({"encrypt": Together((Exec("x"), Tpm2("/dev/vda2", together=True)))}, "is sealed to a TPM"),
        ({"auto_open": False}, "does not have the initrd open"),
        ({"initrd": False}, "does not have the initrd open"),
        ({"makefs": "xfs"}, "the root is ext4"),
        ({"dev": "/dev/vda1"}, "cannot be the name of a partition"),
        ({"dev": "/dev/disk/by-partlabel/boot"}, "is another partition of the image"),
        ({"dev": "/dev/disk/by-partuuid/0c7db2f6-95a6-4c0d-8f2d-8b8a5c3e7d02"}, "is another partition of the image"),
        ({"identity": Identity("", frozenset(), Path("/i"))}, "is bound to a disk already"),
    ],
)
def test_a_volume_that_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CryptpilotError, match=reason):
        planned(volume=dataclasses.replace(VOLUME, **changes))


def test_a_volume_of_kms_needs_a_network_in_the_initrd() -> None:
    assert planned(volume=KMS).root == 1
    with pytest.raises(CryptpilotError, match="has no /usr/lib/dracut/modules"):
        planned(_lacking(requirements.DRACUT_NETWORK)(FOUND), KMS)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        (grub.INSTALL, "has no /usr/sbin/grub-install"),
        ("/usr/lib/grub/i386-pc", "has no GRUB for i386-pc"),
        ("/usr/lib/grub/x86_64-efi", "has no GRUB for x86_64-efi"),
    ],
)
def test_grub_has_to_be_there_only_where_boot_moves(lacking: str, reason: str) -> None:
    assert planned(_lacking(lacking)(FOUND)).loader.install == ()
    with pytest.raises(CryptpilotError, match=reason):
        planned(_lacking(lacking)(without_boot()))


def test_a_system_of_other_processors_is_refused() -> None:
    requirements.require_machine("x86_64", "x86_64")
    requirements.require_machine(None, "x86_64")  # what is missing is said later
    for there, said in (("aarch64", "for aarch64, and this machine and its cryptpilot are x86_64"), ("", "unknown")):
        with pytest.raises(CryptpilotError, match=f"cannot be converted: .*{said}"):
            requirements.require_machine(there, "x86_64")


def test_fstab_is_read_as_systemd_reads_it() -> None:
    """Which knows a mount point by its plain path; blanks may be tabs, or be written as numbers."""
    for old, new in (
        (" /boot ", " /boot/ "),
        (" / ext4", "\t//\text4"),
        (
            "UUID=",
            'UUID="',
        ),
        (" /boot", "  //boot"),
    ):
        text = FSTAB.replace(old, new)
        text = text.replace(f'"{ROOT_UUID}', f'"{ROOT_UUID}"').replace(f'"{BOOT_UUID}', f'"{BOOT_UUID}"')
        made = planned(_system(fstab=text.replace('"ABCD-1234', '"ABCD-1234"'))(FOUND))
        assert (made.boot, made.new_boot) == (2, False)
    labelled = dataclasses.replace(FOUND, contents={**CONTENTS, 1: Content("ext4", ROOT_UUID, "my root", 4096)})
    by_label = FSTAB.replace(f"UUID={ROOT_UUID}", "LABEL=my\\040root")
    assert planned(_system(fstab=by_label)(labelled)).root == 1
    assert mending.fstab(by_label, VOLUME, "") == FSTAB.replace(f"UUID={ROOT_UUID}", "/dev/mapper/root")


def test_each_line_of_the_roots_file_system_names_the_volume() -> None:
    """By a UUID, the host could have another file system mounted there. All else in a line stays as it is."""
    more = (
        f"/dev/disk/by-uuid/{ROOT_UUID.upper()}\t/srv/again ext4 ro,nofail  0 0 # twice\n"
        f"  PARTUUID=0c7db2f6-95a6-4c0d-8f2d-8b8a5c3e7d01 /srv/third ext4 noauto\n"
        f"UUID={BOOT_UUID}1 /data ext4 defaults 0 2\n/srv/again /mnt none bind 0 0\n# UUID={ROOT_UUID} /old ext4\n"
    )
    found = _system(fstab=FSTAB + more)(FOUND)
    text = mending.fstab(found.system.fstab, VOLUME, "", root_names=planned(found).root_names)
    named = [f"/dev/disk/by-uuid/{ROOT_UUID.upper()}\t", "  PARTUUID=0c7db2f6-95a6-4c0d-8f2d-8b8a5c3e7d01 "]
    expected = FSTAB.replace(f"UUID={ROOT_UUID}", VOLUME.mapper_path) + more
    for one in named:
        expected = expected.replace(one, one.replace(one.strip(), VOLUME.mapper_path))
    assert text == expected
    assert text.count(VOLUME.mapper_path) == 3


@pytest.mark.parametrize("root", [f"UUID={ROOT_UUID}", "/dev/vda1"])
def test_a_partition_of_another_disk_is_not_taken_for_the_root(root: str) -> None:
    """By the kernel's names it has the same number."""
    text = FSTAB.replace(f"UUID={ROOT_UUID}", root) + "/dev/vdb1 /data ext4 nofail 0 2\n/dev/sda1 /srv xfs nofail 0 2\n"
    found = _system(fstab=text)(FOUND)
    mended = mending.fstab(text, VOLUME, "", root_names=planned(found).root_names)
    assert mended == text.replace(root, VOLUME.mapper_path)


@pytest.mark.needs("sfdisk")
def test_a_label_is_known_whatever_is_in_it(tmp_path: Path) -> None:
    image = tmp_path / "img"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    for label in ("my root", 'a"b$c', "back\\slash"):
        subprocess.run(["mkfs.ext4", "-q", "-F", "-L", label, image], check=True)
        assert facts.content(block.tags(str(image))).label == label


@pytest.mark.needs("sfdisk")
def test_partitions_may_be_where_older_tools_put_them(tmp_path: Path) -> None:
    """From sector 34 on, and more than 128 of them."""
    image, other = tmp_path / "img", tmp_path / "other"
    rows = f"34 : start=34, size=2014, type={layout.BIOS_BOOT}, name=a b=c, 'd\n200 : start=4096, size=2048\n"
    for path in (image, other):
        with path.open("wb") as file:
            file.truncate(40 << 20)
    for header, row in (("first-lba: 34", 0), ("table-length: 256", 1)):
        text = f"label: gpt\n{header}\n{rows.splitlines()[row].split(', name')[0]}\n"
        subprocess.run(["sfdisk", "--quiet", image], input=text, text=True, check=True)
        for name in ("a b=c, 'd", "größe", "trailing "):
            number = rows.splitlines()[row].split()[0]
            subprocess.run(["sfdisk", "--quiet", "--part-label", image, number, name], check=True)
            table = partition_table.read(image)
            assert table is not None
            assert table.partitions[0].name == name
            partition_table.write(other, table)
            assert partition_table.read(other) == table


def test_an_image_that_ends_anywhere_gets_a_whole_number_of_mib() -> None:
    for more in (1, 512, SECTOR * 2048 - 1):
        made = planned(dataclasses.replace(FOUND, image=ImageFile("raw", FOUND.image.size + more)))
        assert made.size % (1 << 20) == 0
        assert made.size >= FOUND.image.size + more


@pytest.mark.needs("sfdisk")
def test_a_gpt_of_large_sectors_is_called_what_it_is(tmp_path: Path) -> None:
    with (tmp_path / "img").open("wb") as file:
        file.truncate(40 << 20)
    rows = "label: dos\nstart=1, size=81919, type=ee\n"
    subprocess.run(["sfdisk", "--quiet", tmp_path / "img"], input=rows, text=True, check=True)
    with pytest.raises(CryptpilotError, match="sectors of 512 bytes"):
        plan.require_table(partition_table.read(tmp_path / "img"), "in.img")


@pytest.mark.needs("sfdisk")
def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Some of which have no identifier."""
    with (tmp_path / "img").open("wb") as file:
        file.truncate(40 << 20)
    for label in ("sun", "sgi"):
        subprocess.run(["sfdisk", "--quiet", tmp_path / "img"], input=f"label: {label}\n", text=True, check=True)
        with pytest.raises(CryptpilotError, match=f"of kind {label}"):
            plan.require_table(partition_table.read(tmp_path / "img"), "in.img")
    with pytest.raises(CryptpilotError, match="no partition table"):
        plan.require_table(None, "in.img")
    with pytest.raises(CryptpilotError, match="4096 bytes"):
        plan.require_table(dataclasses.replace(FOUND.table, sector=4096), "in.img")


def test_an_image_that_is_not_whole_is_refused() -> None:
    plan.require_readable(ImageFile("qcow2", 1), "in.img")
    for wrong, reason in (
        (ImageFile("vmdk", 1), "is vmdk"),
        (ImageFile("qcow2", 1, ("a backing file",)), "a backing file"),
    ):
        with pytest.raises(CryptpilotError, match=reason):
            plan.require_readable(wrong, "in.img")


@pytest.mark.parametrize(
    ("source", "number"),
    [
        (f"UUID={ROOT_UUID}", 1),
        (f'UUID="{ROOT_UUID}"', 1),
        (f"/dev/disk/by-uuid/{BOOT_UUID}", 2),
        ("PARTUUID=0c7db2f6-95a6-4c0d-8f2d-8b8a5c3e7d15", 15),
        ("PARTLABEL=boot", 2),
        ("/dev/vda15", 15),
        ("/dev/nvme0n1p2", 2),
        ("/dev/sdb3", None),
        ("LABEL=", None),
        ("tmpfs", None),
    ],
)
def test_a_line_of_fstab_names_a_partition(source: str, number: int | None) -> None:
    assert facts.named(source, FOUND.table, CONTENTS) == number


def test_what_blkid_says_is_read() -> None:
    tags = {"UUID": ROOT_UUID, "BLOCK_SIZE": "4096", "TYPE": "ext4", "USAGE": "filesystem", "PART_ENTRY_NUMBER": "1"}
    assert facts.content(tags) == CONTENTS[1]
    assert facts.content({"TYPE": "xfs"}).block == 512


def test_fstab_has_the_volume_as_its_root_and_keeps_the_rest() -> None:
    made = mending.fstab(FSTAB, VOLUME, "")
    assert made == FSTAB.replace(f"UUID={ROOT_UUID}", "/dev/mapper/root")
    lines = mending.fstab(INSIDE, VOLUME, "abc").splitlines()
    assert lines[:2] == ["/dev/mapper/root / ext4 defaults 0 1", "UUID=abc /boot ext4 defaults 0 2"]
    assert lines[2:] == INSIDE.splitlines()[1:]
    # a comment, an empty line, a mount point that only begins like it
    for text in ("# UUID=a / ext4\n", "\n\n", "UUID=a /data ext4\n"):
        assert mending.fstab(text, VOLUME, "") == text


def wrong_roots(configuration: str) -> list[str]:
    return grub.wrong(grub.kernels(configuration), VOLUME)


def test_what_grub_boots_is_checked() -> None:
    good = "menuentry {\n\tlinux\t/vmlinuz root=/dev/mapper/root ro\n\tinitrd\t/initrd.img\n}\n"
    assert wrong_roots(good) == []
    assert wrong_roots(good + LOADER) == [f"UUID={ROOT_UUID}"]
    assert wrong_roots(good.replace("root ro", "root root=/dev/vda1")) == ["/dev/vda1"]
    memtest = "menuentry {\n\tlinux16\t/memtest86+.bin console=ttyS0,115200\n}\n"
    assert wrong_roots(good + memtest) == []
    assert wrong_roots("") == wrong_roots(memtest) == ["nothing"]
    assert wrong_roots(good.replace("root=", "roots=")) == ["nothing"]
    assert wrong_roots(good + good.replace("\tinitrd", "#")) == ["/dev/mapper/root without an initrd"]


def test_grub_is_told_in_its_own_way(tmp_path: Path) -> None:
    """The file is shell, which grub-mkconfig reads after it has found out what the root is."""
    (tmp_path / "cfg").write_text(mending.grub_settings(VOLUME))
    said = subprocess.run(
        ["sh", "-c", f'. {tmp_path}/cfg; echo "$GRUB_DEVICE $GRUB_DISABLE_LINUX_UUID"'],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout == "/dev/mapper/root true\n"


def test_the_plan_is_said_to_a_person() -> None:
    said = "\n".join(planned(without_boot(), dataclasses.replace(VOLUME, integrity=True)).lines)
    assert "ext4 in volume root with integrity" in said
    assert "/boot: partition 2 (1 GiB), a partition of its own, new" in said
    assert json.dumps(said).isascii()

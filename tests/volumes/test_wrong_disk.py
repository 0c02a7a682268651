"""Disks that are none of ours: `init --yes`, and `open` of a temporary volume, refuse them and change not a byte."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.lab.uml import UmlResult

SIZE = 20 << 20
SECTOR = 512

BEGIN = f"{machines.NO_VOLUMES}umask 077; mkdir -p /run/scratch/volumes\n"
# Runs what must fail, and shows what it said.
REFUSED = 'refused() { if "$@" 2>&1; then echo "NOT REFUSED: $*"; fi; }\n'


def volume(name: str, dev: str, *, makefs: str = "", integrity: bool = False, command: str = "cat /run/key") -> str:
    """Return the shell lines that configure a volume with a command that says the passphrase.

    Without one it is temporary, and in a configuration of its own: no device belongs to two volumes.
    """
    directory = "/etc/cryptpilot" if command else "/run/scratch"
    lines = [f'volume = "{name}"', f'dev = "{dev}"', f"integrity = {str(integrity).lower()}"]
    lines += [f'makefs = "{makefs}"'] if makefs else []
    lines += ["[encrypt.exec]", 'command = "sh"', f"args = ['-c', '{command}']"] if command else ["[encrypt.otp]"]
    text = "\n".join(lines)
    return f"cat > {directory}/volumes/{name}.toml << 'END OF FILE'\n{text}\nEND OF FILE\n"


def make_lvm(image: bytearray) -> None:
    """Write the label of an LVM physical volume, in the second sector."""
    label = bytearray(SECTOR)
    label[0:8] = b"LABELONE"
    label[8:16] = (1).to_bytes(8, "little")
    label[20:24] = (32).to_bytes(4, "little")
    label[24:32] = b"LVM2 001"
    label[32:64] = b"abcdefghijklmnopqrstuvwxyz012345"
    checksum = zlib.crc32(label[20:], 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    label[16:20] = checksum.to_bytes(4, "little")
    image[SECTOR : 2 * SECTOR] = label


def make_raid(image: bytearray) -> None:
    """Write the superblock of a member of a Linux RAID, version 0.90: in the last whole 64 KiB but one."""
    words = [0] * 1024
    words[0:10] = [0xA92B4EFC, 0, 90, 0, 0, 1, 2, 3, 1, len(image) >> 10]  # a RAID 1
    superblock = b"".join(word.to_bytes(4, "little") for word in words)
    at = (len(image) & ~0xFFFF) - 0x10000
    image[at : at + len(superblock)] = superblock


def make_newer_raid(image: bytearray) -> None:
    """Write the superblock of a member of a Linux RAID, version 1.2, 4 KiB from the beginning; what is before stays."""
    data = 2048  # sectors before the data
    superblock = bytearray(256)
    superblock[16:32] = b"0123456789abcdef"
    for at, value in {0: 0xA92B4EFC, 4: 1, 72: 1, 80: len(image) // SECTOR - data, 92: 2, 128: data, 144: 8}.items():
        superblock[at : at + 4] = value.to_bytes(4, "little")
    image[4096 : 4096 + len(superblock)] = superblock


def make_partitions(image: bytearray) -> None:
    """Write an MBR with one Linux partition, from sector 2048 to the end."""
    entry = bytes([0, 0, 2, 0, 0x83, 0, 0, 0])
    length = len(image) // SECTOR - 2048
    image[446:462] = entry + (2048).to_bytes(4, "little") + length.to_bytes(4, "little")
    image[510:512] = b"\x55\xaa"


# Somebody opens a device for himself, and says so.
HOLD = """
perl -MFcntl -e '$| = 1; sysopen(my $disk, $ARGV[0], O_RDONLY | O_EXCL) or die; print "held"; sleep 600' \\
    {device} > /run/held &
until [ -s /run/held ]; do sleep 0.1; done
"""

# By name: what is written to the image, what is done on the device, and a part of what is said.
USED: dict[str, tuple[Callable[[bytearray], None] | None, str, str]] = {
    "swap in use": (None, "mkswap {device}; swapon {device}", "is in use"),
    "swap": (None, "mkswap {device}", "holds data of type swap"),
    "a physical volume of LVM": (make_lvm, "", "LVM2_member"),
    "a member of a RAID": (make_raid, "", "linux_raid_member"),
    "a disk that somebody else has opened for himself": (
        None,
        HOLD,
        "is in use",
    ),
    "a disk with a partition that is mounted": (
        make_partitions,
        "mkfs.ext4 -q {node}1; mount -o ro {node}1 /mnt",
        "is in use",
    ),
    "a disk with a partition": (make_partitions, "", "holds data of type dos"),
    "a mounted file system": (None, "mkfs.ext4 -q {device}; mkdir /run/m; mount -o ro {device} /run/m", "is in use"),
}


def test_a_disk_in_use_or_with_something_on_it_is_left_alone(tree: Path, tmp_path: Path) -> None:
    disks = []
    lines = [BEGIN, REFUSED]
    for number, (write, prepare, _) in enumerate(USED.values()):
        image = bytearray(SIZE)
        if write:
            write(image)
        path = tmp_path / f"{number}.img"
        path.write_bytes(image)
        disk = Disk(path, f"d{number}")
        disks.append(disk)
        node = f"/dev/ubd{'abcdefghijklmnop'[number]}"
        lines.append(f"{prepare.format(device=disk.device, node=node)}\nsync\n")
        lines.append(volume(f"kept{number}", disk.device, makefs="ext4"))
        lines.append(volume(f"scratch{number}", disk.device, command=""))
        lines.append(f"""
echo "=== {number}"
sha256sum {disk.device}
refused cryptpilot init kept{number} --yes
refused cryptpilot open kept{number}
refused cryptpilot -c /run/scratch open scratch{number}
refused cryptpilot -c /run/scratch init scratch{number} --yes
sha256sum {disk.device}
""")
    lines.append("ls /dev/mapper\n")
    result = run_uml(tree, "".join(lines), disks=disks, timeout=240).check()
    assert "NOT REFUSED" not in result.stdout
    assert result.stdout.endswith("control\n")
    parts = re.split(r"^=== \d+\n", result.stdout, flags=re.MULTILINE)[1:]
    for name, part in zip(USED, parts):
        _, _, said = USED[name]
        temporary = part.index("scratch")
        assert said in part[:temporary], f"{name}: {part}"
        assert said in part[temporary:], f"{name}: {part}"
        before, after = re.findall(r"^[0-9a-f]{64}", part, re.MULTILINE)
        assert before == after, name
    assert len(parts) == len(USED)


def test_what_is_left_of_a_header_allows_nothing(tree: Path, tmp_path: Path) -> None:
    """Where something else was put over a header of ours, its mark may be left, and blkid alone may say LUKS."""
    others = [make_newer_raid, make_raid, make_partitions]
    marks = ["cryptpilot-otp", "cryptpilot-initializing"]
    disks = [Disk(blank_disk(tmp_path / f"{n}.img", SIZE), f"d{n}") for n in range(len(others) * len(marks))]
    lines = [BEGIN, REFUSED]
    for number, disk in enumerate(disks):
        lines.append(volume(f"kept{number}", disk.device, makefs="vfat"))
        lines.append(volume(f"scratch{number}", disk.device, command=""))
    made = "".join(
        "echo key | cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
        f" --subsystem {marks[number % len(marks)]} {disk.device} -\n"
        for number, disk in enumerate(disks)
    )
    run_uml(tree, made, disks=disks, timeout=240).check()
    for number, disk in enumerate(disks):
        image = bytearray(disk.path.read_bytes())
        others[number // len(marks)](image)
        disk.path.write_bytes(image)
    before = [sha256(disk.path) for disk in disks]
    for number in range(len(disks)):
        lines.append(f"refused cryptpilot init kept{number} --yes\n")
        lines.append(f"refused cryptpilot -c /run/scratch open scratch{number}\n")
    lines.append("ls /dev/mapper\n")
    result = run_uml(tree, "".join(lines), disks=disks, timeout=240).check()
    assert "NOT REFUSED" not in result.stdout
    assert result.stdout.endswith("control\n")
    said = "data of type linux_raid_member|holds signatures of several kinds"
    assert len(re.findall(said, result.stdout)) == 2 * len(disks)
    assert [sha256(disk.path) for disk in disks] == before


def test_a_disk_is_looked_at_again_after_the_passphrase_was_stretched(tree: Path, tmp_path: Path) -> None:
    """That takes seconds, and longer where several wait for their turn; and an interruption then is in time."""
    names = ["late", "first", "second"]
    disks = {name: Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in names}
    configured = "".join(volume(name, disk.device, makefs="vfat", command="echo weak") for name, disk in disks.items())
    result = run_uml(
        tree,
        f"""{BEGIN}{configured}
stretching() {{ until grep --quiet --no-messages --line-regexp cryptsetup /proc/[0-9]*/comm; do sleep 0.02; done; }}
cryptpilot init late --yes 2>&1 &
stretching
mkfs.vfat -n PRECIOUS {disks["late"].device} > /dev/null
status=0; wait $! || status=$?; echo "late: $status"
blkid --probe --output=value --match-tag=LABEL {disks["late"].device}
cryptpilot init first second --yes 2>&1 &
stretching
kill -TERM $!
status=0; wait $! || status=$?; echo "told to end: $status"
ls /dev/mapper
""",
        disks=list(disks.values()),
    ).check()
    assert "holds data of type vfat; init would destroy it" in result.stdout
    assert re.findall(r"^(?:late|told to end): .*|^PRECIOUS", result.stdout, re.MULTILINE)[-3:] == [
        "late: 1",
        "PRECIOUS",
        "told to end: 130",
    ]
    assert result.stdout.endswith("control\n")
    for name in ("first", "second"):
        assert disks[name].path.read_bytes() == bytes(SIZE)


def test_a_disk_by_two_names_is_not_two_disks(tree: Path, tmp_path: Path) -> None:
    disk = Disk(blank_disk(tmp_path / "disk.img", SIZE), "disk")
    result = run_uml(
        tree,
        f"""{BEGIN}{REFUSED}ln -s {disk.device} /dev/alias
{volume("one", disk.device, makefs="vfat")}{volume("other", "/dev/alias", makefs="vfat")}
refused cryptpilot init one other --yes
refused cryptpilot init other --yes
""",
        disks=[disk],
    ).check()
    assert "NOT REFUSED" not in result.stdout
    same = f'/dev/alias is the same device as {disk.device}, which belongs to volume "one"'
    assert result.stdout.count(same) == 2
    assert disk.path.read_bytes() == bytes(SIZE)


NO_DEVICES = {
    "null": (":", "is not a block device"),
    "directory": ("mkdir /dev/directory", "is not a block device"),
    "file": ("ln -s /run/file /dev/file", "is not a block device"),
    "nowhere": ("ln -s /dev/no-such-disk /dev/nowhere", "no such device"),
    "loop-of-links": ("ln -s /dev/loop-of-links /dev/loop-of-links", "no such device"),
}


def test_what_is_no_block_device_is_left_alone(tree: Path) -> None:
    lines = [BEGIN, REFUSED, "head -c 30M /dev/zero > /run/file\n"]
    for name, (prepare, _) in NO_DEVICES.items():
        lines.append(f"{prepare}\n{volume(f'kept-{name}', f'/dev/{name}', makefs='ext4')}")
        lines.append(volume(f"scratch-{name}", f"/dev/{name}", command=""))
        lines.append(f"echo '=== {name}'; refused cryptpilot init kept-{name} --yes\n")
        lines.append(f"refused cryptpilot open kept-{name}; refused cryptpilot -c /run/scratch open scratch-{name}\n")
    lines.append("echo '=== end'; ls /dev/mapper; head -c 30M /dev/zero | cmp - /run/file; cryptpilot show --json\n")
    result = run_uml(tree, "".join(lines), timeout=120).check()
    assert "NOT REFUSED" not in result.stdout
    _, *parts = re.split(r"^=== ([\w-]+)\n", result.stdout, flags=re.MULTILINE)
    for name, part in zip(parts[:-2:2], parts[1:-2:2]):
        assert part.count(f"/dev/{name}: {NO_DEVICES[name][1]}") == 3, part
    assert parts[-1].startswith("control\n")
    assert parts[-1].count('"status": "device-not-found"') == len(NO_DEVICES)


# What happens while the key is fetched, what the link leads to before, and what is said; {here} and {there} are disks.
OTHER = "is not what it was a moment ago: another device, or other content"
SWAPS = {
    "the link leads to another disk": ("ln -sfn {there} /dev/choice", "{here}", OTHER),
    "a file system appears": ("mkfs.ext4 -q {here}", "{here}", "holds data of type ext4; init would destroy it"),
    "the device is another": ("losetup -d /dev/loop0; losetup /dev/loop0 {there}", "/dev/loop0", OTHER),
}


@pytest.mark.parametrize("name", SWAPS)
def test_a_device_that_becomes_another_while_the_key_is_fetched_is_not_formatted(
    tree: Path, tmp_path: Path, name: str
) -> None:
    here, there = two_disks(tmp_path)
    swap, device, said = (text.format(here=here.device, there=there.device) for text in SWAPS[name])
    result = run_uml(
        tree,
        f"""{BEGIN}{REFUSED}
[ {device} = {here.device} ] || losetup {device} {here.device}
ln -s {device} /dev/choice
{volume("kept", "/dev/choice", makefs="vfat", command=f"{swap} > /dev/null; cat /run/key")}
refused cryptpilot init kept --yes
ls /dev/mapper
blkid -p {here.device} {there.device} || true
""",
        disks=[here, there],
    ).check()
    assert "NOT REFUSED" not in result.stdout
    assert said in result.stdout
    assert re.findall(r"^(?:control|kept.*)$", result.stdout, re.MULTILINE) == ["control"]
    assert re.findall(r' TYPE="(\w+)"', result.stdout) == (["ext4"] if name == "a file system appears" else [])
    if name != "a file system appears":
        assert there.path.read_bytes() == here.path.read_bytes() == bytes(SIZE)


def test_a_volume_that_becomes_another_while_the_key_is_fetched_is_not_opened(tree: Path, tmp_path: Path) -> None:
    """Both take the same key: it is not what keeps it closed."""
    here, there = two_disks(tmp_path)
    run_uml(
        tree,
        f"""{BEGIN}
{volume("one", here.device, makefs="vfat")}
{volume("other", there.device, makefs="vfat")}
cryptpilot init one other --yes
""",
        disks=[here, there],
    ).check()
    before = [sha256(disk.path) for disk in (here, there)]
    swap = f"ln -sfn {there.device} /dev/choice"
    result = run_uml(
        tree,
        f"""{BEGIN}{REFUSED}
ln -s {here.device} /dev/choice
{volume("kept", "/dev/choice", makefs="vfat", command=f"{swap}; cat /run/key")}
refused cryptpilot open kept
ls /dev/mapper
cryptpilot open kept
""",
        disks=[here, there],
    ).check()
    assert "NOT REFUSED" not in result.stdout
    assert "/dev/choice leads to another device than a moment ago" in result.stdout
    # and once it leads where it did before, all is well
    assert result.stdout.endswith("control\nkept: /dev/mapper/kept is open\n")
    assert [sha256(disk.path) for disk in (here, there)] == before


def two_disks(work: Path) -> tuple[Disk, Disk]:
    return Disk(blank_disk(work / "here.img", SIZE), "here"), Disk(blank_disk(work / "there.img", SIZE), "there")


# In KiB, by file system, without integrity and with it: the smallest device, found by trying. 16 MiB are the header's.
# Below, mkfs fails with Debian 12, or makes ext4 without a journal.
SMALLEST = {
    ("", False): 16388,
    ("", True): 17228,
    ("ext4", False): 24576,
    ("ext4", True): 25580,
    ("vfat", False): 16448,
    ("vfat", True): 17292,
    ("swap", False): 16424,
    ("swap", True): 17268,
    ("xfs", False): 323584,
    ("xfs", True): 330568,
}


def run_sized(tree: Path, work: Path, sizes: Sequence[int], each: str) -> UmlResult:
    """Run lines for each of SMALLEST, with $name, $kind and $device, on disks of so many KiB."""
    disks = []
    lines = [BEGIN, REFUSED]
    for number, ((kind, integrity), size) in enumerate(zip(SMALLEST, sizes)):
        disk = Disk(blank_disk(work / f"{number}.img", size << 10), f"v{number}")
        disks.append(disk)
        lines.append(volume(disk.name, disk.device, makefs=kind, integrity=integrity))
        lines.append(f"name={disk.name} kind={kind or 'none'} device={disk.device}\n{each}\n")
    modules = ["vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1"]
    return run_uml(tree, "".join(lines), disks=disks, modules=modules, timeout=240).check()


def test_the_smallest_device_will_do(tree: Path, tmp_path: Path) -> None:
    result = run_sized(
        tree,
        tmp_path,
        list(SMALLEST.values()),
        """
cryptpilot init $name --yes
cryptpilot open $name
case $kind in
none) dd if=/dev/mapper/$name of=/dev/null bs=4096 status=none ;;
swap) swapon /dev/mapper/$name; swapoff /dev/mapper/$name ;;
*) mount -t $kind /dev/mapper/$name /mnt; echo something > /mnt/file; umount /mnt ;;
esac
if [ $kind = ext4 ]; then dumpe2fs -h /dev/mapper/$name 2> /dev/null | grep --only-matching has_journal; fi
cryptpilot close $name
echo "good: $name"
""",
    )
    assert re.findall(r"^good: (\w+)$", result.stdout, re.MULTILINE) == [f"v{n}" for n in range(len(SMALLEST))]
    assert result.stdout.count("has_journal") == 2


@pytest.mark.parametrize("below", [True, False], ids=["just too small", "a megabyte"])
def test_a_device_that_is_too_small_is_left_alone(tree: Path, tmp_path: Path, below: bool) -> None:
    sizes = [size - 4 if below else 1024 for size in SMALLEST.values()]
    result = run_sized(tree, tmp_path, sizes, "refused cryptpilot init $name --yes")
    assert "NOT REFUSED" not in result.stdout
    assert result.stdout.count(" is too small: it has ") == len(SMALLEST)
    for number, size in enumerate(sizes):
        assert (tmp_path / f"{number}.img").stat().st_blocks == 0, size

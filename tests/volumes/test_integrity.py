"""Volumes with integrity = true: not a sector is read before it was written, and none is believed that was changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.uml import UmlResult

FILE_SYSTEMS = {
    "ext4": ("e2fsck -f -n", 96 << 20),
    "xfs": ("xfs_repair -n", 448 << 20),
    "vfat": ("fsck.vfat -n", 96 << 20),
}

# By what release they are made and used. `make test` has each release, each file system and each kind of volume once.
_ALL = [
    *(("bookworm", name, kind) for name in ("kept", "scratch") for kind in FILE_SYSTEMS),
    ("bullseye", "kept", "ext4"),
    ("bullseye", "scratch", "xfs"),
]
_CHOSEN = {("bookworm", "kept", "xfs"), ("bookworm", "scratch", "vfat"), ("bullseye", "kept", "ext4")}
VOLUMES = [pytest.param(*one, marks=[] if one in _CHOSEN else [pytest.mark.matrix]) for one in _ALL]

# perl, because starting a program costs a twentieth of a second in there, and these are thousands of files.
FILES = r"""
cat > /run/files << 'END'
# files write|read DIRECTORY: fills a file system with files and directories until nothing more fits; reads all back.
use strict;
my ($verb, $top) = @ARGV;
my $noise = "";
srand(7);
$noise .= pack("N", int(rand(2**32))) for 1 .. 75000;
sub content { my ($n, $small) = @_; return $small ? "$n\n" : "$n " . substr($noise, $n % 1000, $n * 7919 % 290000) }
sub path { my ($n, $small) = @_; return "$top/" . ($small ? "s" : $n % 37) . "/$n" }
sub put {
    my ($path, $text) = @_;
    mkdir $path =~ s|/[^/]*$||r;
    open(my $file, ">", $path) or return 0;
    my $good = print $file $text;
    return close($file) && $good;
}
if ($verb eq "write") {
    mkdir $top;
    my ($n, $small) = (0, 0);
    # what the large ones leave is taken by the smallest there are; a file that did not fit is cut short, and goes
    while (1) {
        $n++;
        next if put(path($n, $small), content($n, $small));
        unlink path($n, $small);
        last if $small;
        $small = 1;
    }
    print "$n written\n";
} else {
    my $n = 0;
    for my $path (glob("$top/*/*")) {
        my ($small, $number) = $path =~ m|([^/]+)/([0-9]+)$|;
        open(my $file, "<", $path) or die "$path: $!";
        local $/;
        my $text = <$file>;
        die "$path: is not what was written" if !defined $text || $text ne content($number, $small eq "s");
        $n++;
    }
    print "$n read\n";
}
END
"""


@pytest.fixture
def tree(tree: Path, request: pytest.FixtureRequest) -> Path:
    """The tree of a release; that of Debian 11 has a cryptsetup before 2.4, see test_composite.py."""
    return request.getfixturevalue("bullseye_tree") if getattr(request, "param", "") == "bullseye" else tree


def run(
    site: machines.Site,
    tree: Path,
    disk: Disk,
    kind: str,
    script: str,
    *,
    integrity: bool = True,
    timeout: float = 120,
) -> UmlResult:
    """Run a script where the disk is a volume with integrity: KMS if it is called `kept`, OTP if `scratch`."""
    site.behave("ok")
    if disk.name == "kept":
        volume = machines.volume_file(site, volume="kept", dev=disk.device, makefs=kind)
        volume = volume.replace("auto_open = true", f"integrity = {str(integrity).lower()}")
    else:
        volume = f'volume = "scratch"\ndev = "{disk.device}"\nmakefs = "{kind}"\nintegrity = true\n[encrypt.otp]\n'
    volume = volume.replace('makefs = ""\n', "")
    configured = f"""
rm -f /etc/cryptpilot/volumes/*
umask 077
cat > /etc/cryptpilot/volumes/{disk.name}.toml << 'EOF'
{volume}
EOF
# What the kernel says of errors since it was last asked.
errors() {{ echo "$1: $(dmesg --read-clear | grep --ignore-case "error" || true)"; }}
errors start > /dev/null
"""
    modules = ["vfat", "nls_cp437", "nls_iso8859-1"] if kind == "vfat" else []
    return machines.run_with_kms(site, tree, configured + script, disks=[disk], modules=modules, timeout=timeout)


@pytest.mark.parametrize(("tree", "name", "kind"), VOLUMES, indirect=["tree"])
def test_a_file_system_on_a_device_that_was_never_wiped_is_as_good_as_any(
    site: machines.Site, tree: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Filled, emptied and filled again, checked and read back, without one error that a program or the kernel sees."""
    check, size = FILE_SYSTEMS[kind]
    disk = Disk(blank_disk(tmp_path / "disk.img", size), name)
    result = run(
        site,
        tree,
        disk,
        kind,
        f"""{FILES}
{"cryptpilot init kept --yes" if name == "kept" else ":"}
cryptpilot open {name}
blkid --probe /dev/mapper/{name}
{check} /dev/mapper/{name} > /dev/null
errors "new"
mount /dev/mapper/{name} /mnt
ls -lR /mnt
perl /run/files write /mnt/first
df --output=avail /mnt
rm -r /mnt/first
errors "filled and emptied"
perl /run/files write /mnt/second
umount /mnt
errors "filled again"
{check} /dev/mapper/{name} > /dev/null
mount /dev/mapper/{name} /mnt
perl /run/files read /mnt/second
umount /mnt
cryptpilot close {name}
errors "checked and read"
""",
        timeout=300,
    ).check()
    lines = result.stdout.splitlines()
    assert [line for line in lines if line.endswith(": ")] == [
        "new: ",
        "filled and emptied: ",
        "filled again: ",
        "checked and read: ",
    ]
    assert f'TYPE="{kind}"' in result.stdout
    (read,) = [int(line.split()[0]) for line in lines if line.endswith(" read")]
    assert read > 100


def test_swap_on_a_device_that_was_never_wiped(site: machines.Site, tree: Path, tmp_path: Path) -> None:
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "scratch")
    result = run(
        site,
        tree,
        disk,
        "swap",
        """
cryptpilot open scratch
swapon /dev/mapper/scratch
cat /proc/swaps
swapoff /dev/mapper/scratch
cryptpilot close scratch
errors "used"
""",
    ).check()
    assert "used: \n" in result.stdout
    assert "partition" in result.stdout


BLOCK = 4096
# Reads a file block by block: how many are as they were written, how many differ, how many give an error.
READ_BLOCKS = r"""
perl -e '
    my %count = (right => 0, wrong => 0, unreadable => 0);
    open(my $file, "<", "/mnt/large") or die;
    for my $n (0 .. 2047) {
        sysseek($file, 4096 * $n, 0);
        my $got = sysread($file, my $block, 4096);
        $count{!defined $got ? "unreadable" : $block eq pack("N", $n) x 1024 ? "right" : "wrong"}++;
    }
    print "$_ $count{$_}\n" for sort keys %count;
'
"""


@pytest.mark.parametrize(
    ("tree", "integrity"),
    [("bookworm", True), ("bookworm", False), ("bullseye", True)],
    ids=["integrity", "control", "bullseye"],
    indirect=["tree"],
)
def test_what_was_changed_on_the_disk_is_a_read_error_and_never_wrong_data(
    site: machines.Site, tree: Path, tmp_path: Path, integrity: bool
) -> None:
    """One byte of a block is changed, of every fiftieth. Without integrity they are all read, and wrong."""
    disk = Disk(blank_disk(tmp_path / "disk.img", 96 << 20), "kept")
    run(site, tree, disk, "ext4", "cryptpilot init kept --yes", integrity=integrity).check()
    before = disk.path.read_bytes()
    written = run(
        site,
        tree,
        disk,
        "ext4",
        f"""
cryptpilot open kept
mount /dev/mapper/kept /mnt
perl -e 'print pack("N", $_) x 1024 for 0 .. 2047' > /mnt/large
sync
{READ_BLOCKS}
umount /mnt
cryptpilot close kept
""",
        integrity=integrity,
    ).check()
    changed = change_every(50, before, disk)
    read = run(
        site,
        tree,
        disk,
        "ext4",
        f"""
cryptpilot open kept
mount /dev/mapper/kept /mnt
{READ_BLOCKS}
""",
        integrity=integrity,
    ).check()
    assert "right 2048\nunreadable 0\nwrong 0" in written.stdout
    counts = (2048 - changed, changed, 0) if integrity else (2048 - changed, 0, changed)
    assert changed > 20
    assert "right {}\nunreadable {}\nwrong {}".format(*counts) in read.stdout


def change_every(step: int, before: bytes, disk: Disk) -> int:
    """Flip a bit of each block of a number, in what is the file's by its length; return how many there were."""
    after = bytearray(disk.path.read_bytes())
    blocks = range(0, len(after), BLOCK)
    differing = [n for n, at in enumerate(blocks) if before[at : at + BLOCK] != after[at : at + BLOCK]]
    runs: list[list[int]] = [[]]
    for n in differing:
        if runs[-1] and n != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(n)
    # the ends of the longest run may be other things than the file
    chosen = max(runs, key=len)[step:-step:step]
    for n in chosen:
        after[n * BLOCK + 1000] ^= 1
    disk.path.write_bytes(after)
    return len(chosen)


TAG = 32
"""Bytes of a tag, HMAC-SHA256."""
SUPERBLOCK = 16 << 20
"""Where dm-integrity begins on the device: behind the LUKS2 header."""
CHUNK = 16
"""Bytes that AES encrypts at once: what did not change in a block is not seen to have changed."""
SECTOR = 512
JOURNAL_SECTION = 264 * SECTOR
"""Bytes of a section of the journal: 8 sectors with 4 entries each, and a block for each entry."""


def test_one_block_put_back_with_its_tag_is_believed(tree: Path, tmp_path: Path) -> None:
    """The limit of integrity: an old block with its old tag is as good as the new ones; without it, it is not."""
    disk, earlier = (Disk(blank_disk(tmp_path / f"{name}.img", 32 << 20), name) for name in ("disk", "earlier"))
    configured = machines.NO_VOLUMES + machines.exec_volume("kept", disk.device, integrity=True)
    mount = "cryptpilot open kept; mount /dev/mapper/kept /mnt"
    unmount = "umount /mnt; cryptpilot close kept"

    def write(word: str) -> str:
        """Return the shell lines that write one block over, each chunk of it anew."""
        content = f"{word} is granted. " * BLOCK
        return f"{mount}\nprintf '{content[:BLOCK]}' | dd of=/mnt/grants conv=notrunc,fsync status=none\n{unmount}"

    # a file system without a journal, so that nothing else is written over
    made = "cryptpilot init kept --yes; cryptpilot open kept; tune2fs -O ^has_journal /dev/mapper/kept"
    made += "; cryptpilot close kept"
    script = f"{made}\n{write('all')}\ncp {disk.device} {earlier.device}\nsync\n{write('not')}\n"
    run_uml(tree, configured + script, disks=[disk, earlier]).check()
    before = earlier.path.read_bytes()
    block, tag = written_block(before, disk.path.read_bytes())

    def put(source: str, *places: slice, to: str = disk.device) -> str:
        """Return the shell lines that put parts of a disk where they are on another."""
        copy = f"dd if={source} of={to} iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc status=none"
        return "".join(f"{copy} skip={at.start} seek={at.start} count={at.stop - at.start}\n" for at in places)

    cases = {"nothing": [], "block and tag": [block, tag], "block": [block], "tag": [tag]}
    cases["whole disk"] = [slice(0, len(before))]
    script = put(disk.device, block, tag, to="/run/now")
    for name, places in cases.items():
        script += f"""
{put("/run/now", block, tag)}{put(earlier.device, *places)}
echo "=== {name}"
{mount}
dmesg --clear
(head -c 3 /mnt/grants && echo) 2>&1 || true
dmesg | grep --only-matching "INTEGRITY AEAD ERROR" | uniq
{unmount}
"""
    result = run_uml(tree, configured + script, disks=[disk, earlier], timeout=240).check()
    _, *parts = re.split(r"^=== (.*)\n", result.stdout, flags=re.MULTILINE)
    opened, closed = "kept: /dev/mapper/kept is open\n", "kept: /dev/mapper/kept is closed\n"
    error = "head: error reading '/mnt/grants': Input/output error\nINTEGRITY AEAD ERROR\n"
    said = {"nothing": "not\n", "block and tag": "all\n", "block": error, "tag": error, "whole disk": "all\n"}
    assert dict(zip(parts[::2], parts[1::2])) == {name: opened + text + closed for name, text in said.items()}


def written_block(before: bytes, after: bytes) -> tuple[slice, slice]:
    """Return where the one block is that was written over in full, and where its tag is.

    Behind the journal tags and blocks alternate: the tags of so many blocks, and then these blocks. Sources, in Linux:
    drivers/md/dm-integrity.c and Documentation/admin-guide/device-mapper/dm-integrity.rst.
    """
    magic, row, sections = (before[SUPERBLOCK + at : SUPERBLOCK + end] for at, end in ((0, 8), (9, 10), (12, 16)))
    assert magic == b"integrt\0"
    begin = SUPERBLOCK + BLOCK + int.from_bytes(sections, "little") * JOURNAL_SECTION
    tags = (SECTOR << row[0]) // BLOCK * TAG
    found = []
    for block in range(begin, len(before), BLOCK):
        within = (block - begin) % (tags + (SECTOR << row[0]))
        tag = block - within + (within - tags) // BLOCK * TAG
        places = slice(block, block + BLOCK), slice(tag, tag + TAG)
        # not those that were written for the first time
        if within >= tags and any(before[places[0]]) and all(differs(before[at], after[at]) for at in places):
            found.append(places)
    ((block_place, tag_place),) = found
    return block_place, tag_place


def differs(one: bytes, other: bytes) -> bool:
    """Tell whether two pieces differ in each of the chunks that AES encrypts at once."""
    return all(one[at : at + CHUNK] != other[at : at + CHUNK] for at in range(0, len(one), CHUNK))


@pytest.mark.parametrize("tree", ["bookworm", "bullseye"], indirect=True)
def test_a_volume_without_a_file_system_is_written_all_over(site: machines.Site, tree: Path, tmp_path: Path) -> None:
    """Nobody knows then what will be read of it: all of it can be."""
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "kept")
    result = run(
        site,
        tree,
        disk,
        "",
        """
cryptpilot init kept --yes
cryptpilot open kept
dd if=/dev/mapper/kept of=/dev/null bs=1M
mkfs.ext4 -q /dev/mapper/kept
errors "used"
""",
    ).check()
    assert "used: \n" in result.stdout


def test_a_header_that_lost_its_integrity_is_not_opened(site: machines.Site, tree: Path, tmp_path: Path) -> None:
    """Whoever writes to the disk can write a header that names no integrity, and with a checksum that is right."""
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "kept")
    run(site, tree, disk, "ext4", "cryptpilot init kept --yes", integrity=False).check()
    result = run(
        site,
        tree,
        disk,
        "ext4",
        """
! cryptpilot open kept 2>&1
cryptpilot show kept
ls /dev/mapper
""",
    ).check()
    assert "not to be trusted: it has no integrity protection" in result.stdout
    assert "check-failed" in result.stdout
    assert result.stdout.endswith("control\n")

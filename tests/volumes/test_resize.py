"""Disks that were enlarged, sectors of 512 bytes, and discards: on real dm-crypt, with disks that grow underneath.

The disks are files on a loop device, so that they can be enlarged while they are in use, and their blocks be counted.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests import machines
from tests.lab.disk import Disk, blank_disk, partition
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
DATA = 16 * MIB
"""Where a volume's data begin."""

TOOLS = r"""
fails() { status=0; "$@" 2>&1 || status=$?; echo "status $status"; [ $status != 0 ]; }
heading() { echo "=== $*"; }
mkdir /run/disks; mkfs.ext4 -q /dev/disk/by-id/virtio-store; mount /dev/disk/by-id/virtio-store /run/disks
umask 077
# disk NAME SIZE [LOSETUP-OPTION]: makes a disk /dev/disks/NAME.
mkdir -p /dev/disks
disk() { truncate -s $2 /run/disks/$1; ln -s $(losetup -f --show ${3:-} /run/disks/$1) /dev/disks/$1; }
# grow NAME SIZE: what happens when the cloud's console is told to.
grow() { truncate -s $2 /run/disks/$1; losetup -c $(readlink -f /dev/disks/$1); }
# volume NAME LINE...: configures a volume of that disk.
volume() {
    printf '%s\n' "volume = \"$1\"" "dev = \"/dev/disks/$1\"" "${@:2}" '[encrypt.exec]' 'command = "cat"' \
        'args = ["/run/key"]' > /etc/cryptpilot/volumes/$1.toml
}
table() { dmsetup table $1 | sed 's/ :[0-9]*:logon:[^ ]*//'; }
"""


def run(tree: Path, work: Path, script: str, *more: Disk, timeout: float = 400) -> dict[str, str]:
    """Run a script; return what it said, by the headings in it."""
    store = Disk(blank_disk(work / "store.img", 1400 * MIB), "store")
    result = run_uml(tree, f"{machines.NO_VOLUMES}{TOOLS}{script}", disks=[store, *more], timeout=timeout).check()
    _, *parts = re.split(r"^=== (.+)\n", result.stdout, flags=re.MULTILINE)
    assert result.stderr == ""
    return dict(zip(parts[::2], parts[1::2]))


def records(text: str) -> dict[str, dict[str, Any]]:
    """Return the records of a `show --json`, by volume."""
    return {record["volume"]: record for record in json.loads(text)}


def test_an_enlarged_disk_is_grown_into_while_it_is_in_use(tree: Path, tmp_path: Path) -> None:
    """To the sector; with the file systems, as they can; and what was written before and meanwhile is there."""
    said = run(
        tree,
        tmp_path,
        f"""
for name in ext idle swap tags; do disk $name 64M; done; disk xfs 340M
volume ext 'makefs = "ext4"' 'discard = true'; volume idle 'makefs = "ext4"'; volume xfs 'makefs = "xfs"'
volume swap 'makefs = "swap"'; volume tags 'makefs = "ext4"' 'integrity = true'
cryptpilot init ext idle xfs swap tags --yes > /dev/null; cryptpilot open ext idle xfs swap tags > /dev/null
mkdir "/run/a b" /run/x; mount /dev/mapper/ext "/run/a b"; mount /dev/mapper/xfs /run/x
head -c 9M /dev/urandom > "/run/a b/file"; cp "/run/a b/file" /run/x/file
heading before
cryptpilot show --json
for name in ext idle swap tags; do grow $name {96 * MIB + 512}; done; grow xfs 440M
heading grown
cryptpilot show --json
heading table
cryptpilot show ext tags
heading wrong secret
cp /run/key /run/right; head -c 64 /dev/urandom > /run/key
table ext; fails cryptpilot resize ext; table ext
cp /run/right /run/key
while [ ! -e /run/enough ]; do echo line >> "/run/a b/log"; echo x >> /run/written; done &
writer=$!
heading resize
fails cryptpilot resize ext idle xfs tags
touch /run/enough; wait $writer
heading again
cryptpilot resize ext idle xfs swap
heading tables
for name in ext idle xfs swap tags; do echo "$name $(table $name)"; done
heading kept
cmp "/run/a b/file" /run/x/file && echo "the same"; sha256sum /run/x/file > /run/sum
[ "$(grep -c line "/run/a b/log")" = "$(grep -c x /run/written)" ] && echo "all lines"
df --output=size -k "/run/a b" /run/x | tail -n +2
umount "/run/a b" /run/x
for name in ext idle; do
    e2fsck -fn /dev/mapper/$name > /dev/null 2>&1 && echo sound
    dumpe2fs -h /dev/mapper/$name 2> /dev/null | grep "^Block count"
done
heading not mounted
cryptpilot resize xfs
grow xfs 450M
fails cryptpilot resize xfs
mount /dev/mapper/xfs /run/x; cryptpilot resize xfs; sha256sum --check --quiet /run/sum; umount /run/x
xfs_repair -n /dev/mapper/xfs > /dev/null 2>&1 && echo sound
heading after
cryptpilot show --json
heading closed
cryptpilot close idle tags > /dev/null
fails cryptpilot resize idle
cryptpilot show tags --json
cryptpilot open tags
""",
    )
    before, grown, after = (records(said[when]) for when in ("before", "grown", "after"))
    assert {record["unused_bytes"] for record in before.values()} == {0}
    assert {record["detail"] for record in before.values()} == {""}
    # of sectors of 4096 bytes the last 512 are no part; what dm-integrity leaves is not exact
    sizes = {"ext": 32 * MIB, "idle": 32 * MIB, "swap": 32 * MIB, "xfs": 100 * MIB}
    assert {name: grown[name]["unused_bytes"] for name in sizes} == sizes
    assert 32 * MIB <= grown["tags"]["unused_bytes"] < 33 * MIB
    assert "its device is 32 MiB larger than the volume; grow it: cryptpilot resize ext" in said["table"]
    assert "its device is 32 MiB larger than the volume, which has integrity and keeps its size" in said["table"]
    first, *middle, last = said["wrong secret"].splitlines()
    assert first == last
    assert "the secret does not open /dev/disks/ext: no key slot takes it" in middle[0]
    assert "ext: /dev/mapper/ext grew from 48 MiB to 80 MiB; its ext4 fills it\n" in said["resize"]
    assert "idle: /dev/mapper/idle grew from 48 MiB to 80 MiB; its ext4 fills it\n" in said["resize"]
    assert "xfs: /dev/mapper/xfs grew from 324 MiB to 424 MiB; its xfs fills it\n" in said["resize"]
    assert "error: tags: its device is 32 MiB larger than the volume, which has integrity and keeps" in said["resize"]
    assert said["resize"].endswith("status 1\n")
    assert "ext: /dev/mapper/ext has all of its device already (80 MiB); its ext4 fills it\n" in said["again"]
    assert (
        "swap: /dev/mapper/swap grew from 48 MiB to 80 MiB; its swap keeps its size: make it again: swapoff"
        in said["again"]
    )
    tables = dict(line.split(" ", 1) for line in said["tables"].splitlines())
    plain = "crypt aes-xts-plain64 0"
    assert re.fullmatch(rf"0 163840 {plain} 7:\d+ 32768 2 allow_discards sector_size:4096", tables["ext"])
    assert re.fullmatch(rf"0 163840 {plain} 7:\d+ 32768 1 sector_size:4096", tables["idle"])
    assert tables["xfs"].startswith(f"0 {424 * 2048} crypt")
    assert said["kept"].startswith("the same\nall lines\n")
    ext, xfs = (int(size) for size in re.findall(r"^ *(\d+)$", said["kept"], re.MULTILINE))
    assert ext > 70_000
    assert xfs > 340_000
    assert said["kept"].count(f"sound\nBlock count:              {80 * MIB // 4096}\n") == 2
    assert said["not mounted"].startswith("xfs: /dev/mapper/xfs has all of its device already (424 MiB); its xfs fills")
    assert "error: xfs: its xfs grows only while it is mounted\n" in said["not mounted"]
    assert "xfs: /dev/mapper/xfs has all of its device already (434 MiB); its xfs fills it\n" in said["not mounted"]
    assert said["not mounted"].endswith("sound\n")
    assert {name: after[name]["unused_bytes"] for name in sizes} == dict.fromkeys(sizes, 0)
    assert "error: idle: is not open, and only an open volume is resized\n" in said["closed"]
    assert '"status": "ready-to-open"' in said["closed"]
    assert "its device is 32 MiB larger than the volume, which has integrity" in said["closed"]


def test_a_header_with_another_volume_key_does_not_get_to_the_open_volume(tree: Path, tmp_path: Path) -> None:
    """Of the same UUID and the same secret: cryptsetup would go on writing with the other key."""
    said = run(
        tree,
        tmp_path,
        """
disk one 64M; volume one 'makefs = "ext4"'; truncate -s 64M /run/other
cryptpilot init one --yes > /dev/null; cryptpilot open one > /dev/null
uuid=$(cryptsetup luksUUID /dev/disks/one)
head -c 16M /dev/disks/one > /run/good
cryptsetup luksFormat -q --type luks2 --cipher aes-xts-plain64 --key-size 512 --sector-size 4096 --pbkdf pbkdf2 \\
    --pbkdf-force-iterations 1000 --key-file /run/key --subsystem cryptpilot --uuid $uuid /run/other
sha256sum /dev/mapper/one > /run/sum
grow one 96M
heading other header
dd if=/run/other of=/dev/disks/one bs=1M count=16 conv=notrunc,fsync status=none
fails cryptpilot resize one
heading not bound
rm /etc/cryptpilot/identities/*
fails cryptpilot resize one
table one
heading good header
dd if=/run/good of=/dev/disks/one bs=1M conv=notrunc,fsync status=none
sha256sum --check /run/sum
cryptpilot resize one
heading another program
cryptpilot close one > /dev/null
cryptsetup open --key-file /run/key /dev/disks/one one
grow one 128M
fails cryptpilot resize one
cryptpilot close one > /dev/null
cryptpilot open one
cryptpilot resize one
heading temporary
printf '%s\n' 'volume = "one"' 'dev = "/dev/disks/one"' '[encrypt.otp]' > /etc/cryptpilot/volumes/one.toml
fails cryptpilot resize one
""",
    )
    assert "and another volume key than that volume was bound with\n" in said["other header"]
    assert "error: one: the header of /dev/disks/one is not the one the volume was opened by\n" in said["not bound"]
    assert "\n0 98304 crypt aes-xts-plain64 " in said["not bound"]
    assert "/dev/mapper/one: OK\none: /dev/mapper/one grew from 48 MiB to 80 MiB; its ext4" in said["good header"]
    assert "error: one: was opened by another program, or an older version of cryptpilot" in said["another program"]
    assert "one: /dev/mapper/one has all of its device already (112 MiB); its ext4 fills it" in said["another program"]
    assert "error: one: is temporary: it takes the size of its device at each open" in said["temporary"]


def test_a_partition_is_enlarged_first_and_may_end_anywhere(tree: Path, tmp_path: Path) -> None:
    """As growpart leaves it: a number of sectors that is no multiple of eight, which cryptsetup does not open."""
    disk = Disk(partition(blank_disk(tmp_path / "parted.img", 160 * MIB), [64 * MIB]), "parted")
    size = 128 * MIB // 512 + 7
    entry = "".join(f"\\{byte:03o}" for byte in size.to_bytes(4, "little"))
    said = run(
        tree,
        tmp_path,
        rf"""
ln -s /dev/ubdb1 /dev/disks/part; volume part 'makefs = "ext4"' 'auto_open = true'
cryptpilot init part --yes > /dev/null; cryptpilot open part > /dev/null
mount /dev/mapper/part /mnt; echo kept > /mnt/file
heading show
cryptpilot show part --json
heading resize
cryptpilot resize part
heading grown
printf '{entry}' | dd of=/dev/ubdb bs=1 seek={446 + 12} conv=notrunc,fsync status=none
partx --update /dev/ubdb
cryptpilot resize part
table part
umount /mnt; cryptpilot close part > /dev/null
heading reopened
blockdev --getsize64 /dev/ubdb1
cryptpilot config check
cryptpilot show part --json
cryptpilot open part
table part; blockdev --getsize64 /dev/ubdb1
mount /dev/mapper/part /mnt; cat /mnt/file; umount /mnt
heading whole disk
disk odd 64M; volume odd 'makefs = "ext4"'
cryptpilot init odd --yes > /dev/null
grow odd {96 * MIB + 512}
fails cryptpilot config check --keep-checking
fails cryptpilot open odd
cryptpilot show odd
grow odd 100M
cryptpilot open odd
""",
        disk,
    )
    (record,) = records(said["show"]).values()
    assert (record["unused_bytes"], record["unpartitioned_bytes"]) == (0, 95 * MIB)
    assert "its disk has 95 MiB free behind the partition /dev/disks/part; grow the partition" in record["detail"]
    assert "has all of its device already (48 MiB); its ext4 fills it; its disk has 95 MiB free" in said["resize"]
    assert said["grown"].startswith("part: /dev/mapper/part grew from 48 MiB to 112 MiB; its ext4 fills it")
    assert "\n0 229376 crypt " in said["grown"]
    lines = said["reopened"].splitlines()
    assert lines[:2] == [str(size * 512), "part: ok"]
    assert '  "status": "ready-to-open",' in said["reopened"]
    assert lines[-4] == "part: /dev/mapper/part is open"
    assert lines[-3].startswith("0 229376 crypt ")
    assert lines[-2:] == [str(128 * MIB), "kept"]
    wrong = f"/dev/disks/odd has {96 * MIB + 512} bytes, of which the last 512 are not a whole sector of the volume"
    assert f"odd: error: {wrong}" in said["whole disk"]
    assert f"cryptpilot: error: odd: {wrong}" in said["whole disk"]
    assert f"check-failed: {wrong}" in said["whole disk"]
    assert said["whole disk"].endswith("odd: /dev/mapper/odd is open\n")


def test_an_image_with_small_sectors_mounts_on_a_volume_with_such(tree: Path, tmp_path: Path) -> None:
    """And not on one as it is made by default. With integrity, whose blocks follow; and not where a disk has larger."""
    said = run(
        tree,
        tmp_path,
        """
disk large 340M; disk small 340M; disk tags 360M; disk xfs 440M; disk fat 128M
disk coarse 64M --sector-size=4096; disk uneven 67109376
volume large; volume small 'sector_size = 512'; volume tags 'sector_size = 512' 'integrity = true' 'makefs = "ext4"'
volume xfs 'sector_size = 512' 'integrity = true' 'makefs = "xfs"'
volume fat 'sector_size = 512' 'integrity = true' 'makefs = "vfat"'
volume coarse 'sector_size = 512'; volume uneven 'sector_size = 4096'
cryptpilot init large small tags xfs fat --yes > /dev/null; cryptpilot open large small tags xfs fat > /dev/null
truncate -s 300M /run/disks/image; mkfs.xfs -q -s size=512 /run/disks/image
for name in large small; do
    heading $name
    dd if=/run/disks/image of=/dev/mapper/$name bs=1M conv=fsync status=none
    mount /dev/mapper/$name /mnt 2> /dev/null && { echo mounted; umount /mnt; } || echo "not mounted"
    dmesg --read-clear | grep XFS || true
    table $name
done
heading tags
table tags_dif; table tags
mount /dev/mapper/tags /mnt; head -c 100M /dev/urandom > /mnt/file; sha256sum /mnt/file > /run/sum; umount /mnt
cryptpilot close tags > /dev/null; cryptpilot open tags > /dev/null
mount /dev/mapper/tags /mnt; sha256sum --check /run/sum; umount /mnt; e2fsck -fn /dev/mapper/tags > /dev/null 2>&1
mount /dev/mapper/xfs /mnt; head -c 99M /dev/urandom > /mnt/file; umount /mnt
xfs_repair -n /dev/mapper/xfs > /dev/null 2>&1
fsck.vfat -n /dev/mapper/fat > /dev/null
heading show
cryptpilot show small --json
# what the file says now makes no difference to a volume that is there
volume small 'sector_size = 4096'; cryptpilot close small > /dev/null; cryptpilot open small; table small
heading refused
fails cryptpilot init coarse uneven --yes
""",
    )
    assert "\nnot mounted\n" in f"\n{said['large']}"
    assert "device supports 4096 byte sectors (not 512)" in said["large"]
    assert "sector_size:4096" in said["large"]
    assert said["small"].startswith("mounted\n")
    assert "sector_size" not in said["small"]
    assert "block_size" not in said["tags"].splitlines()[0]  # 512 is dm-integrity's default
    assert said["tags"].endswith("/mnt/file: OK\n")
    show, _, reopened = said["show"].partition("]\n")
    (record,) = records(show + "]").values()
    assert record["sector_size"] == 512
    assert "sector_size" not in reopened
    assert "/dev/disks/coarse has sectors of 4096 bytes, and" in said["refused"]
    assert "/dev/disks/uneven has 67109376 bytes, no multiple of sector_size = 4096 in" in said["refused"]


def test_discards_reach_the_disk_only_where_they_are_asked_for(tree: Path, tmp_path: Path) -> None:
    """Counted in the blocks of the file that is the disk. A temporary volume likewise."""
    said = run(
        tree,
        tmp_path,
        """
for name in with without temporary; do disk $name 128M; done
volume with 'makefs = "ext4"' 'discard = true'; volume without 'makefs = "ext4"'
printf '%s\n' 'volume = "temporary"' 'dev = "/dev/disks/temporary"' 'makefs = "ext4"' 'discard = true' \\
    '[encrypt.otp]' > /etc/cryptpilot/volumes/temporary.toml
cryptpilot init with without --yes > /dev/null; cryptpilot open with without temporary > /dev/null
heading used
for name in with without temporary; do
    mount /dev/mapper/$name /mnt
    head -c 64M /dev/urandom > /mnt/file; sync; full=$(du -k /run/disks/$name | cut -f 1)
    rm /mnt/file; sync
    fstrim /mnt 2> /dev/null && trimmed=yes || trimmed=no
    sync
    echo $name $trimmed $((full - $(du -k /run/disks/$name | cut -f 1)))
    umount /mnt
done
heading show
cryptpilot show with
""",
    )
    used = {name: (trimmed, int(freed)) for name, trimmed, freed in map(str.split, said["used"].splitlines())}
    assert used["without"] == ("no", 0)
    for name in ("with", "temporary"):
        assert used[name][0] == "yes"
        assert used[name][1] > 50 * 1024
    assert "makefs=ext4, discard" in said["show"]

"""What is not converted, or not to its end, leaves nothing behind, and the image as it was."""

from __future__ import annotations

import pytest

from tests.boot.conversion import CONVERT, LEFT_BEHIND, Workshop
from tests.boot.kinds import IN_LVM
from tests.boot.stock import Stock
from tests.lab.disk import sha256

NOTHING = ["==", "files", "in.img", "secret"]
"""What `LEFT_BEHIND` says where no more is there than before."""


@pytest.mark.matrix
def test_one_that_is_killed_leaves_nothing_once_the_next_has_run(workshop: Workshop) -> None:
    """Nor does one that is interrupted, at once. What is read of LVM is a mapping more that could be left."""
    original = workshop.image(IN_LVM)
    before = sha256(original)
    result = workshop.run(
        f"""
began=$(date +%s%N)
{CONVERT} > /dev/null
whole=$((($(date +%s%N) - began) / 1000000))
rm out.img
# in how much time a whole one ends depends on what else this machine does
end_by() {{
    long=$((whole * $2 / 1000))
    {CONVERT} > /run/said 2>&1 & sleep $((long / 1000)).$(printf %03d $((long % 1000)))
    kill -$1 $! || true
    status=0; wait $! || status=$?
    [ ! -e out.img ] || {{ rm out.img; whole=$((whole * 3 / 4)); return 1; }}
    [ $status = $3 ] || {{ echo "status $status"; cat /run/said; exit 1; }}
}}
for part in {" ".join(map(str, KILLED_AFTER))}; do
    until end_by KILL $part 137; do echo "had ended"; done
    {CONVERT} --dry-run > /dev/null
    [ -z "$(losetup --list --noheadings)" ] || {{ losetup --list; ls /dev/mapper; exit 1; }}
    [ "$(ls /dev/mapper)" = control ]
    [ "$(ls -A .)" = "$(printf 'in.img\nsecret')" ]
done
for part in {" ".join(map(str, INTERRUPTED_AFTER))}; do
    until end_by TERM $part 130; do echo "had ended"; done
    {LEFT_BEHIND}
done
""",
        dev=IN_LVM.dev,
        timeout=1500,
    ).check()
    assert sha256(original) == before
    assert result.stdout.count("== left behind\n") == len(INTERRUPTED_AFTER)
    for left in result.stdout.split("== left behind\n")[1:]:
        assert left.split() == NOTHING, left


KILLED_AFTER = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 140, 160, 180, 200, 250, 300, 400, 500, 700)
"""Thousandths of a whole conversion, which looks, formats and copies first; then dracut takes most of the time."""
INTERRUPTED_AFTER = (50, 80, 120, 200, 400)
"""The same; before the first of them Python is still being started, and is ended by the signal itself."""


def test_what_cannot_be_converted_is_refused_and_nothing_is_left(workshop: Workshop) -> None:
    """Each with its own reason, and the image is as it was."""
    original = workshop.image(Stock())
    before = sha256(original)
    convert = CONVERT.replace("in.img", "$1")
    result = workshop.run(
        f"""
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
# what cryptsetup leaves that is killed before its mapping has a table
dmsetup create root-converting --notable --uuid CRYPT-LUKS2-0-root-converting; dmsetup create else --notable
{CONVERT} --dry-run > /dev/null
dmsetup ls | grep -v ^else && exit 1; dmsetup remove else
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
loop=$(changed lvm); DM_DISABLE_UDEV=1 lvm vgcreate --quiet --yes two ${{loop}}p1
for name in root home; do
    lvm lvcreate --quiet --activate n --zero n --wipesignatures n --extents 9 --name $name two
done
losetup -d $loop; refused lvm lvm
loop=$(changed arm); mount ${{loop}}p1 /mnt; printf '\\267' | dd of=/mnt/usr/bin/systemctl bs=1 seek=18 conv=notrunc
umount /mnt; losetup -d $loop; refused arm arm
truncate -s 1M blank; refused blank blank
qemu-img create -q -f qcow2 -F raw -b in.img backed; refused backed backed
{CONVERT.replace("-file secret", "-file nothing")} 2>&1 || true
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
        "the volume group of partition 1 has several logical volumes: home, root",
        "is for aarch64",
        "has no partition table",
        "needs a backing file",
        "is not base64",
        "cannot be read: No such file",
    ):
        assert reason in result.stdout, result
    assert "was converted" not in result.stdout
    assert result.stdout.split("== left behind\n")[1].split() == NOTHING

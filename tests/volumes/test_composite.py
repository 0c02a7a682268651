"""Integrity with a cryptsetup before 2.4, which wants header and data on one device: Debian 11's 2.3.7.

It is given the checked header in memory and the data of the disk as one device, and what it opened is moved to the
disk. Whatever goes wrong on the way, no volume stays half open, and nothing of that device stays.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

HEADER = 16
"""MiB that a header takes."""

# Puts a program in another's place. The other is NAME.real, and the number of this call is in $count.
WRAP = """
wrap() {  # NAME SHELL-LINES
    local path; path=$(command -v "$1")
    mv "$(readlink -f "$path")" "/usr/sbin/$1.real"; rm -f "$path"
    printf '#!/bin/bash\\n%s\\nexec "/usr/sbin/%s.real" "$@"\\n' "$2" "$1" > "/usr/sbin/$1"
    chmod +x "/usr/sbin/$1"
}
left() { dmsetup.real ls --target crypt; dmsetup.real ls --target linear; losetup --list --noheadings; }
"""


def volume(disk: Disk, *, temporary: bool = False) -> str:
    """Return the shell lines that configure a volume with integrity, called as the disk it is on."""
    text = machines.exec_volume(disk.name, disk.device, integrity=True)
    return re.sub(r"\[encrypt.exec\]\n.*\n.*\n", "[encrypt.otp]\n", text) if temporary else text


def test_what_the_disk_has_in_place_of_the_header_is_never_read(bullseye_tree: Path, tmp_path: Path) -> None:
    """The moment cryptsetup runs, the disk has another header there, which takes the same secret, without integrity."""
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "kept")
    script = f"""{machines.NO_VOLUMES}{volume(disk)}{WRAP}
cryptsetup luksFormat --batch-mode --type=luks2 --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 \\
    --subsystem=cryptpilot --key-file=/run/key {disk.device}
head -c {HEADER}M {disk.device} > /run/hostile
cryptpilot init kept --yes --force-reinit
cryptpilot open kept; mount /dev/mapper/kept /mnt; echo "all is well" > /mnt/file; umount /mnt; cryptpilot close kept
head -c {HEADER}M {disk.device} > /run/ours
wrap dmsetup ''
wrap cryptsetup 'case "$*" in "open "*) cat /run/hostile 1<> {disk.device}; sync ;; esac'
cryptpilot open kept
cmp -n {HEADER << 20} {disk.device} /run/hostile
mount /dev/mapper/kept /mnt; cat /mnt/file; umount /mnt
dmsetup table
left
cryptpilot close kept
echo "control:"; cryptsetup open --key-file=/run/key {disk.device} control; dmsetup table; cryptsetup close control
cat /run/ours 1<> {disk.device}
echo "init:"
sed -i 's/"open "/"luksFormat "/' /usr/sbin/cryptsetup
cryptpilot init kept --yes --force-reinit
cmp -n {HEADER << 20} {disk.device} /run/hostile | cut --fields=1 --delimiter=:
sed -i 's/"luksFormat "/none/' /usr/sbin/cryptsetup
cryptpilot open kept; dmsetup table
"""
    result = run_uml(bullseye_tree, script, disks=[disk]).check()
    ours, control, init = re.split("^(?:control|init):\n", result.stdout, flags=re.MULTILINE)
    assert "\nall is well\n" in ours
    assert re.search(r"^kept: 0 \d+ crypt capi:authenc\(hmac\(sha256\),xts\(aes\)\)", ours, re.MULTILINE)
    # as a newer cryptsetup has it: the disk itself, where the header ends
    assert re.search(r"^kept_dif: 0 \d+ integrity 98:0 32768 32 J ", ours, re.MULTILINE)
    assert re.findall(r"^(\S+)\t", ours, re.MULTILINE) == ["kept"]
    assert "integrity" not in control
    assert "/dev/loop" not in result.stdout
    assert re.search(r"^kept_dif: 0 \d+ integrity 98:0 32768 32 J ", init, re.MULTILINE)


# How a step that is done with dmsetup ends: it fails, or cryptpilot is killed before it. In the order of an open.
CASES = {
    "kept": [
        *("fails create", "fails table", "fails load", "fails suspend", "fails resume-kept_dif", "fails resume-kept"),
        *("dies create", "dies table", "dies suspend", "dies resume-kept", "fails remove"),
    ],
    "scratch": ["fails create", "dies load"],
}
NOTHING = "No devices found\n" * 2


def test_what_is_cut_short_on_the_way_leaves_nothing(bullseye_tree: Path, tmp_path: Path) -> None:
    """A volume is closed after a failure. What cryptpilot left when it was killed is gone after the next open."""
    disks = {name: Disk(blank_disk(tmp_path / f"{name}.img", 32 << 20), name) for name in CASES}
    cases = " ".join(f"'{name} {case}'" for name, some in CASES.items() for case in some)
    script = f"""{machines.NO_VOLUMES}{volume(disks["kept"])}{volume(disks["scratch"], temporary=True)}{WRAP}
cryptpilot init kept --yes > /dev/null
wrap dmsetup 'read -r fate step < /run/case
case "$1-$2 " in
    "$step"*) if [ $fate = dies ]; then kill -9 $PPID; else echo no luck >&2; fi; exit 1 ;;
esac'
for one in {cases}; do
    read -r name case <<< "$one"
    echo $case > /run/case
    echo "=== $one"
    cryptpilot open $name > /dev/null 2> /run/said || echo "status $?"
    grep --only-matching "no luck" /run/said || true
    echo none none > /run/case
    case $case in
        dies*|*remove) cryptpilot close $name; cryptpilot open $name > /dev/null; cryptpilot close $name ;;
    esac
    left
done
cryptpilot open kept > /dev/null; mount /dev/mapper/kept /mnt
"""
    result = run_uml(bullseye_tree, script, disks=list(disks.values()), timeout=400).check()
    _, *parts = re.split(r"^=== (.*)\n", result.stdout, flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2]))
    assert list(found) == [f"{name} {case}" for name, some in CASES.items() for case in some]
    assert found.pop("kept fails remove") == f"{CLOSED}{CLOSED}{NOTHING}"
    for case, said in found.items():
        if " fails " in case:
            assert said == f"status 1\nno luck\n{NOTHING}", case
        else:
            assert said.startswith("status 137\n"), case
            assert said.endswith(f" is closed\n{NOTHING}"), case


CLOSED = "kept: /dev/mapper/kept is closed\n"

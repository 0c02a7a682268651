"""What a stage tells goes to a host that may be hostile: whatever becomes of it, the volumes are opened."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"wiped": 48 << 20, "small": 48 << 20, "slow": 48 << 20}
# "wiped" is wiped for integrity, a MiB in 0.2 s: that lasts longer than [boot] timeout, after which the stage gives up
# on "slow", of which no read ends in time.
SET_UP = f"""
rm -f /etc/cryptpilot/volumes/*
umask 077
volume() {{
    {{ printf 'volume = "%s"\\ndev = "%s"\\nauto_open = true\\n' "$1" "$2"; cat; }} > "/etc/cryptpilot/volumes/$1.toml"
}}
delayed() {{
    DM_DISABLE_UDEV=1 dmsetup create "disk-$1" --table "0 {SIZES["slow"] >> 9} delay $2 0 $3 $2 0 $4"
}}
printf '[boot]\\ntimeout = 3\\nverbose = true\\n' > /etc/cryptpilot/global.toml
delayed wiped /dev/disk/by-id/virtio-wiped 0 200
delayed slow /dev/disk/by-id/virtio-slow 12000 0
printf 'integrity = true\\n[encrypt.otp]\\n' | volume wiped /dev/mapper/disk-wiped
printf 'makefs = "ext4"\\n[encrypt.otp]\\n' | volume small /dev/disk/by-id/virtio-small
printf 'makefs = "ext4"\\n[encrypt.otp]\\n' | volume slow /dev/mapper/disk-slow
boot() {{ cryptpilot boot-service --stage system; }}
no_room() {{
    mkdir -p /run/cryptpilot
    mount -t tmpfs -o size=8k,mode=755 none /run/cryptpilot
    head -c 8192 /dev/zero > /run/cryptpilot/events.jsonl || true
}}
no_file() {{
    mkdir -p /run/cryptpilot
    mount -t tmpfs -o nr_inodes=1,mode=755 none /run/cryptpilot
}}
"""
# Runs a program whose outputs are a pipe that is full, and that is never read. 1031: F_SETPIPE_SZ
NOBODY_READS = (
    'pipe(R, W); fcntl(W, 1031, 4096); syswrite(W, "x" x 4096);'
    ' $^F = 9; open(STDOUT, ">&W"); open(STDERR, ">&W"); exit(system(@ARGV) >> 8)'
)
CONSOLES = {
    "full": "boot > /dev/full 2>&1 || status=$?",
    "no reader": "boot 2>&1 | true; status=${PIPESTATUS[0]}",
    "closed": "boot >&- 2>&- || status=$?",
    "blocked": f"perl -e '{NOBODY_READS}' cryptpilot boot-service --stage system || status=$?",
    "no room for the log": "no_room; boot || status=$?",
    "no room for any file": "no_file; boot || status=$?",
    "full, and no room for the log": "no_room; boot > /dev/full 2>&1 || status=$?",
}


@pytest.mark.parametrize("console", CONSOLES.values(), ids=CONSOLES)
def test_a_stage_that_cannot_be_heard_opens_its_volumes(tree: Path, tmp_path: Path, console: str) -> None:
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", size), name) for name, size in SIZES.items()]
    script = f"""{SET_UP}
set +e +o pipefail
status=0
{console}
echo "status $status"
ls /dev/mapper
ps -e -o comm= | grep -E "^(cryptsetup|mkfs)"
dmesg | grep -i segfault
true
"""
    result = run_uml(tree, script, disks=disks, timeout=120, modules=["dm-delay"])
    _, _, left = result.stdout.rpartition("status ")
    assert left == "1\ncontrol\ndisk-slow\ndisk-wiped\nsmall\nwiped\nwiped_dif\n", result
    assert "Traceback" not in result.stdout + result.stderr, result


SLOW = f"""{SET_UP}
rm /etc/cryptpilot/volumes/*
printf '[boot]\\ntimeout = 15\\n' > /etc/cryptpilot/global.toml
head -c 64 /dev/urandom > /run/key
printf 'makefs = "ext4"\\n[encrypt.exec]\\ncommand = "cat"\\nargs = ["/run/key"]\\n' | volume late /dev/mapper/disk-late
delayed late /dev/disk/by-id/virtio-small 0 0
cryptpilot init late --yes
dmsetup suspend disk-late
dmsetup load disk-late --table "$(dmsetup table disk-late | sed 's/\\(delay [0-9:]* 0\\) 0/\\1 4000/')"
dmsetup resume disk-late
echo "-- boot"
status=0; cryptpilot boot-service --stage system || status=$?
echo "status $status"
for command in show "config check" "open late"; do
    echo "-- $command"
    # the terminal of a person who has enough after a while
    TERM=linux script --quiet --return --command "timeout --signal INT 9 cryptpilot $command" /dev/null || true
done
"""


def test_a_disk_that_answers_slowly_is_said_to(tree: Path, tmp_path: Path) -> None:
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", size), name) for name, size in SIZES.items()]
    result = run_uml(tree, SLOW, disks=disks, timeout=180, modules=["dm-delay"]).check()
    _, boot, *by_hand = re.split("^-- ", result.stdout, flags=re.MULTILINE)
    told = [int(seconds) for seconds in re.findall(r"^late: still reading /dev/mapper/disk-late: (\d+) s$", boot, re.M)]
    assert len(told) >= 2, result
    assert told[0] < 8, result
    assert re.search(r"failed: +not done within 15 s \(probe: reading /dev/mapper/disk-late for \d+ s\)", boot), result
    assert "status 1\n" in boot
    for command in by_hand:
        assert re.search(r"late: reading /dev/mapper/disk-late, [1-9] s", command), result
    assert len(by_hand) == 3


def test_what_a_killed_wipe_left_is_closed_by_the_next_opening(tree: Path, tmp_path: Path) -> None:
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", size), name) for name, size in SIZES.items()]
    script = f"""{SET_UP}
rm /etc/cryptpilot/volumes/s*
boot > /run/said 2>&1 & pid=$!
# one is there for a moment before the wipe as well
wiping() {{ ls /dev/mapper/temporary-cryptsetup-* > /dev/null 2>&1; }}
until wiping && sleep 1 && wiping && sleep 1 && wiping; do sleep 0.1; done
kill -KILL $pid $(ps -e -o pid=,comm= | sed -n 's/ cryptsetup$//p')
wait $pid || true
ls /dev/mapper
echo "-- again"
cryptpilot open wiped
ls /dev/mapper
"""
    result = run_uml(tree, script, disks=disks, timeout=120, modules=["dm-delay"]).check()
    killed, again = result.stdout.split("-- again\n")
    assert "temporary-cryptsetup-" in killed, result
    assert again.endswith(" is open\ncontrol\ndisk-slow\ndisk-wiped\nwiped\nwiped_dif\n"), result

"""Volumes whose `cryptsetup reencrypt` is not finished: it lasts for hours, and a reboot in between is ordinary."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 512 << 20
"""Bytes: a machine takes some seconds to reencrypt them, and is interrupted long before."""
OPTIONS = "--batch-mode --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file=/run/key"

# By name: the shell lines that leave a reencryption of $device unfinished; the volume is open and mounted.
CLEAN = {
    "only prepared": f"umount /mnt; cryptpilot close volume; cryptsetup reencrypt --init-only {OPTIONS} $device",
    "interrupted while the volume is open": f"""
cryptsetup reencrypt {OPTIONS} $device > /run/log 2>&1 & work=$!
sleep 1.5; kill -INT $work; wait $work || true
umount /mnt; cryptpilot close volume""",
}

BEGIN = """
device={device}
cryptpilot init volume --yes; cryptpilot open volume
mount /dev/mapper/volume /mnt; echo kept > /mnt/file; sync
"""

LOOK = """
echo "=== requirements"; cryptsetup luksDump $device | grep Requirements
echo "=== show"; cryptpilot show --json
echo "=== check"; cryptpilot config check || true
dd if=$device of=/run/before bs=1M count=16 status=none
echo "=== open"; cryptpilot open volume 2>&1 || echo FAILED
dd if=$device of=/run/after bs=1M count=16 status=none
cmp /run/before /run/after
"""

FINISH = f"""
echo "=== early"; cryptpilot bind volume 2>&1 && exit 1
echo "=== content"; mount /dev/mapper/volume /mnt; cat /mnt/file; echo more > /mnt/other
echo "=== resume"; cryptsetup reencrypt --resume-only {OPTIONS} $device > /run/log 2>&1 || cat /run/log
echo "=== unbound"; cryptpilot show --json
echo "=== bind"; cryptpilot bind volume
umount /mnt; cryptpilot close volume > /dev/null
echo "=== again"; cryptpilot show --json
cryptpilot open volume > /dev/null; mount /dev/mapper/volume /mnt; echo "=== kept"; cat /mnt/file /mnt/other
umount /mnt; cryptpilot close volume > /dev/null
"""


def run(tree: Path, work: Path, script: str) -> dict[str, str]:
    """Run a script beside a disk that is an exec volume; return what it said, by the headings in it."""
    disk = Disk(blank_disk(work / "disk.img", SIZE), "disk")
    begin = machines.NO_VOLUMES + machines.exec_volume("volume", disk.device) + BEGIN.format(device=disk.device)
    result = run_uml(tree, begin + script, disks=[disk], modules=["algif_skcipher"], timeout=120).check()
    _, *parts = re.split(r"^=== (\w+)\n", result.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2]))


def shown(text: str) -> dict[str, Any]:
    (record,) = json.loads(text)
    found: dict[str, Any] = record
    return found


@pytest.mark.parametrize("name", CLEAN)
def test_a_volume_opens_between_two_steps_of_a_reencryption(tree: Path, tmp_path: Path, name: str) -> None:
    said = run(tree, tmp_path, CLEAN[name] + LOOK + FINISH)
    assert "online-reencrypt-v2" in said["requirements"]
    found = shown(said["show"])
    goes_on = (
        "a reencryption is not finished; go on with it: cryptsetup reencrypt --resume-only"
        " /dev/disk/by-id/virtio-disk; then bind the volume to its new key: cryptpilot bind volume"
    )
    assert (found["status"], found["detail"], found["reencrypting"]) == ("ready-to-open", goes_on, True)
    assert f"volume: warning: {goes_on}\n" in said["check"]
    assert said["open"] == f"volume: /dev/mapper/volume is open; {goes_on}\n"
    assert said["content"] == "kept\n"
    assert "cannot be bound to yet: it has two volume keys" in said["early"]
    assert said["resume"] == ""
    assert "another volume key than that volume was bound with" in shown(said["unbound"])["detail"]
    found = shown(said["again"])
    assert (found["status"], found["detail"], found["reencrypting"]) == ("ready-to-open", "", False)
    assert said["kept"] == "kept\nmore\n"


def test_a_step_that_was_cut_short_is_left_to_cryptsetup(tree: Path, tmp_path: Path) -> None:
    """It would write to the disk what the header says: the disk's own word is not enough for that."""
    killed = f"""
umount /mnt; cryptpilot close volume > /dev/null
cryptsetup reencrypt --hotzone-size=256M {OPTIONS} $device > /run/log 2>&1 & work=$!
until cryptsetup luksDump --dump-json-metadata $device | grep -q in-reencryption; do :; done
kill -9 $work; wait $work || true
cryptsetup luksDump --dump-json-metadata $device | grep -q in-reencryption
"""
    finish = f"""
echo "=== repair"; cryptsetup repair --batch-mode --key-file=/run/key $device
echo "=== resume"; cryptsetup reencrypt --resume-only {OPTIONS} $device > /run/log 2>&1 || cat /run/log
echo "=== bind"; cryptpilot bind volume
echo "=== again"; cryptpilot open volume; mount /dev/mapper/volume /mnt; cat /mnt/file; umount /mnt
"""
    said = run(tree, tmp_path, killed + LOOK + finish)
    what = "a reencryption is not finished, and was cut short in the middle of a step"
    device = "/dev/disk/by-id/virtio-disk"
    command = f"cryptsetup repair {device} && cryptsetup reencrypt --resume-only {device}"
    found = shown(said["show"])
    assert (found["status"], found["reencrypting"]) == ("check-failed", True)
    assert what in found["detail"]
    assert command in found["detail"]
    for place in ("check", "open"):
        assert what in said[place]
        assert command in said[place]
    assert "FAILED" in said["open"]
    assert said["resume"] == ""
    assert said["again"] == "volume: /dev/mapper/volume is open\nkept\n"

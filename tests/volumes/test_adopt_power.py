"""Power cuts while another program's volume is adopted: at each moment its data are there, and adopting finishes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests import machines
from tests.lab import powercut
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml
from tests.volumes.test_adopt import HEADING, QUICK, parts

if TYPE_CHECKING:
    from pathlib import Path

DISK_BYTES = 32 << 20
LOG_BYTES = 256 << 20
CUTS = 16
SEED = 2027
LOGGED, PREPARED, DONE = "logged", "prepared", "done"


def test_an_adoption_that_is_cut_short_leaves_the_data_and_can_be_finished(tree: Path, tmp_path: Path) -> None:
    disk = Disk(blank_disk(tmp_path / "disk.img", DISK_BYTES), "disk")
    log_disk = Disk(blank_disk(tmp_path / "log.img", LOG_BYTES), "log")
    device = powercut.logged_device(LOGGED)
    script = f"""{machines.NO_VOLUMES}
{machines.exec_volume("volume", device)}
{powercut.start_logging(LOGGED, disk.device, log_disk.device)}
{QUICK} --label=kept {device}
cryptsetup open --key-file=/run/key {device} making; mkfs.ext4 -q /dev/mapper/making
mount /dev/mapper/making /mnt; echo kept > /mnt/file; umount /mnt; cryptsetup close making
sync {device}
{powercut.put_mark(LOGGED, PREPARED)}
cryptpilot adopt volume
{powercut.put_mark(LOGGED, DONE)}
{powercut.stop_logging(LOGGED)}
"""
    run_uml(tree, script, disks=[disk, log_disk], modules=[powercut.MODULE], timeout=120).check()
    log = powercut.read_log(log_disk.path)
    first = powercut.moment_of(log, PREPARED)
    moments = powercut.moments_of_change(log, min(CUTS, len(log.entries) - first + 1), seed=SEED, after=PREPARED)
    names = {f"cut{moment}": moment for moment in moments}
    images = {
        name: powercut.cut(log, moment, tmp_path / f"{name}.img", seed=SEED, size=DISK_BYTES)
        for name, moment in names.items()
    }
    disks = [Disk(image, name) for name, image in images.items()]
    files = "".join(machines.exec_volume(one.name, one.device) for one in disks)
    script = f"""{machines.NO_VOLUMES}{HEADING}{files}
heading show before; cryptpilot show --json
for name in {" ".join(names)}; do
    device=/dev/disk/by-id/virtio-$name
    heading secret $name; cryptsetup open --test-passphrase --key-file=/run/key $device && echo OPENS
done
# cryptsetup has put the other copy of a header in the place of one that was half written, with the mark or without
heading show after; cryptpilot show --json
for name in {" ".join(names)}; do
    device=/dev/disk/by-id/virtio-$name
    heading open $name; cryptpilot open $name 2>&1 && cryptpilot close $name || true
    heading adopt $name; cryptpilot adopt $name 2>&1
    heading label $name; blkid --probe --match-tag LABEL --output value $device
    cryptpilot open $name > /dev/null
    heading kept $name; e2fsck -fn /dev/mapper/$name > /dev/null 2>&1; mount /dev/mapper/$name /mnt; cat /mnt/file
    umount /mnt
done
"""
    said = parts(run_uml(tree, script, disks=disks, timeout=300).check().stdout)
    before, states = (
        {one["volume"]: one["status"] for one in json.loads(said["show", when])} for when in ("before", "after")
    )
    for name, moment in names.items():
        done = DONE in powercut.marks_before(log, moment)
        possible = {"ready-to-open"} if done else {"requires-adopt", "ready-to-open"}
        assert {before[name], states[name]} <= possible, name
        assert said["secret", name] == "OPENS\n", name
        if states[name] == "requires-adopt":
            assert f"cryptpilot adopt {name}" in said["open", name], name
            assert not re.search("overwrite|cryptpilot init", said["open", name]), name
        else:
            assert f"/dev/mapper/{name} is open" in said["open", name], name
        assert f"open it with: cryptpilot open {name}" in said["adopt", name], name
        assert (said["label", name], said["kept", name]) == ("kept\n", "kept\n"), name
    # and both states were met
    assert set(states.values()) == {"requires-adopt", "ready-to-open"}

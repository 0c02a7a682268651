"""Power cuts during `cryptpilot init`: `show` tells the truth, `open` waits for `init`, and `init` finishes its job.

One machine runs init while all that reaches the disk is recorded, below the encryption; then the disk is remade as
power cuts at moments all through it may have left it, and machines do with each of these what an administrator would.
Seeds fix where the cuts are; in which order the kernel writes is its own affair.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab import powercut
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.lab.powercut import Log

DISK_BYTES = 64 << 20
LOG_BYTES = 1 << 30
SEED = 2025
LOGGED = "logged"
PREPARED = "prepared"
DONE = "done"
READY = "ready-to-open"


@dataclass(frozen=True)
class Case:
    """An init to be cut short.

    cuts: how often. prepare: shell lines that are run on the disk before; status: what `show` says then. options: of
    init, each time it is run.
    """

    cuts: int
    status: str = "requires-init"
    integrity: bool = False
    prepare: str = ""
    options: str = ""


CASES = {
    "a blank disk": Case(cuts=20),
    "a blank disk, with integrity": Case(cuts=20, integrity=True),
    "what a cut left": Case(
        cuts=10,
        status="initializing",
        # a mkfs that gives up half-way is the same to the header as a power cut then
        prepare="""
cp /usr/sbin/mke2fs /run/really.ext4
printf '#!/bin/sh\\n/run/really.ext4 "$@"; exit 1\\n' > /run/mkfs.ext4; chmod +x /run/mkfs.ext4
mount --bind /run/mkfs.ext4 $(readlink -f /usr/sbin/mkfs.ext4)
! cryptpilot init volume --yes
umount $(readlink -f /usr/sbin/mkfs.ext4)
cryptpilot show volume | grep -q "initializing: init was interrupted"
""",
    ),
    "an initialized volume, to be made anew": Case(
        cuts=10,
        status=READY,
        prepare="cryptpilot init volume --yes",
        options="--force-reinit",
    ),
    "a foreign file system, to be overwritten": Case(
        cuts=10,
        prepare=f"mkfs.ext4 -q {powercut.logged_device(LOGGED)}",
        options="--overwrite ext4",
    ),
}


@dataclass(frozen=True)
class Found:
    """What a machine found on a disk after a power cut, and made of it.

    status: what `show` said. refused: what `open` said, "" if the volume was ready. opened: whether there was a mapping
    of it then. mended: what `show` said after init had been run again, if need be. sound: whether the volume then
    opened, its file system was clean and could be mounted and written to. said: what all programs said on the way.
    """

    moment: int
    marks: Sequence[str]
    status: str
    refused: str
    opened: bool
    mended: str
    sound: bool
    said: str

    def trouble(self) -> list[str]:
        """Say what is not as it must be."""
        ready = self.status == READY
        checks = {
            "is in no state it can be in": self.status in ("requires-init", "initializing", READY),
            "is not ready though init had said so": ready or DONE not in self.marks,
            "was opened before it was ready": not self.opened,
            "open named no way out": ready or "cryptpilot init " in self.refused,
            "init did not finish its job": self.mended == READY,
            "is not sound though ready": self.sound,
        }
        return [what for what, good in checks.items() if not good]


def record(tree: Path, case: Case, work: Path) -> Log:
    """Have a machine run init while all that reaches the disk is recorded."""
    disk = Disk(blank_disk(work / "disk.img", DISK_BYTES), "disk")
    log_disk = Disk(blank_disk(work / "log.img", LOG_BYTES), "log")
    script = f"""
{machines.NO_VOLUMES}
{machines.exec_volume("volume", powercut.logged_device(LOGGED), integrity=case.integrity)}
{powercut.start_logging(LOGGED, disk.device, log_disk.device)}
{case.prepare}
sync {powercut.logged_device(LOGGED)}
{powercut.put_mark(LOGGED, PREPARED)}
cryptpilot init volume --yes {case.options}
{powercut.put_mark(LOGGED, DONE)}
{powercut.stop_logging(LOGGED)}
"""
    run_uml(tree, script, disks=[disk, log_disk], modules=[powercut.MODULE]).check()
    log = powercut.read_log(log_disk.path)
    # The log tells all if it makes the very same disk.
    end = powercut.cut(log, len(log.entries), work / "end.img", seed=SEED, size=DISK_BYTES)
    assert end.read_bytes() == disk.path.read_bytes()
    return log


# What an administrator does. What is found stands below headings, each of a kind and a volume.
LOOK = r"""
heading() { echo "=== $1 $2"; }
heading show all
cryptpilot show --json | tee /run/before
unready=$(perl -ne '$name = $1 if /"volume": "(.*)"/; print "$name\n" if /"status"/ && !/"ready-to-open"/' /run/before)
for name in $unready; do
    heading refused $name
    ! cryptpilot open $name 2>&1 || echo OPENED
    ls /dev/mapper | grep "^$name" || true
done
heading init all
[ -z "$unready" ] || cryptpilot init --yes $options $unready 2>&1 || true
heading mended all
cryptpilot show --json
heading open all
cryptpilot open $all 2>&1 || true
for name in $all; do
    heading sound $name
    if e2fsck -fn /dev/mapper/$name 2>&1 && mount -t ext4 /dev/mapper/$name /mnt; then
        echo written > /mnt/file && sync /mnt/file && umount /mnt && echo SOUND
    fi
done
"""


def look(tree: Path, log: Log, case: Case, moments: Sequence[int], work: Path) -> list[Found]:
    """Have a machine look at the disk as power cuts at some moments leave it, and mend it."""
    work.mkdir()
    images = [powercut.cut(log, one, work / f"{one}.img", seed=SEED, size=DISK_BYTES) for one in moments]
    names = [f"cut{moment}" for moment in moments]
    disks = [Disk(image, name) for image, name in zip(images, names)]
    files = "".join(machines.exec_volume(disk.name, disk.device, integrity=case.integrity) for disk in disks)
    script = f"{machines.NO_VOLUMES}{files}all='{' '.join(names)}' options='{case.options}'\n{LOOK}"
    result = run_uml(tree, script, disks=disks, timeout=300).check()
    for image in images:
        image.unlink()
    _, *parts = re.split(r"^=== (\w+) (\w+)\n", result.stdout, flags=re.MULTILINE)
    told = {(kind, of): text for kind, of, text in zip(parts[::3], parts[1::3], parts[2::3])}
    before, mended = (
        {one["volume"]: one["status"] for one in json.loads(told[kind, "all"])} for kind in ("show", "mended")
    )
    return [
        Found(
            moment=moment,
            marks=powercut.marks_before(log, moment),
            status=before[name],
            refused=told.get(("refused", name), ""),
            opened=bool(re.search(f"^OPENED|^{name}", told.get(("refused", name), ""), re.MULTILINE)),
            mended=mended[name],
            sound=told["sound", name].endswith("SOUND\n"),
            said=told["init", "all"] + told["open", "all"] + told["sound", name],
        )
        for moment, name in zip(moments, names)
    ]


@pytest.mark.parametrize("name", CASES)
def test_an_init_that_is_cut_short_can_be_told_and_finished(tree: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    log = record(tree, case, tmp_path)
    moments = powercut.moments_of_change(log, case.cuts, seed=SEED, after=PREPARED)
    with ThreadPoolExecutor(2) as pool:
        batches = [moments[n::2] for n in range(2)]
        parts = pool.map(lambda batch: look(tree, log, case, batch, tmp_path / f"from{batch[0]}"), batches)
        found = sorted((one for part in parts for one in part), key=lambda one: one.moment)
    bad = [f"{name}, cut at moment {one.moment}: {one.trouble()}: {one}" for one in found if one.trouble()]
    assert not bad, "\n".join(bad)
    assert len(found) == case.cuts
    # And every state was met.
    assert found[0].status == case.status
    assert {one.status for one in found} >= {"initializing", READY}

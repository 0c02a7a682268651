"""Power cuts while a file system is encrypted where it is: no file is lost, and what has begun is finished.

What `convert --device` does to the system in it is left out, which takes minutes: tests/boot/test_convert_device.py.
"""

from __future__ import annotations

import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests import machines
from tests.lab import powercut
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.powercut import Log

DISK_BYTES = 192 << 20
"""More than one group of ext4 has, so that there is a copy of its superblock."""
LOG_BYTES = 2 << 30
CUTS = 20
SEED = 2028
LOGGED, PREPARED, DONE = "logged", "prepared", "done"
MODULES = [powercut.MODULE, "algif_skcipher"]
PROGRAM = f"""
{machines.NO_VOLUMES.partition(";")[2]}
export PYTHONDONTWRITEBYTECODE=1
program() {{ (cd {machines.CHECKOUT}; {sys.executable} -m tests.volumes.encrypt_in_place "$@"); }}
files() {{ (cd $1; find . -type f -print0 | sort -z | xargs -0 sha256sum); }}
"""


def record(work: Path) -> tuple[Log, str]:
    """Have a machine encrypt a file system while all that reaches the disk is recorded; return the files' digests too.

    Some of the files are at its end, from which they are moved to make room.
    """
    disk = Disk(blank_disk(work / "disk.img", DISK_BYTES), "disk")
    log_disk = Disk(blank_disk(work / "log.img", LOG_BYTES), "log")
    source = work / "source"
    source.mkdir()
    chance = random.Random(SEED)  # noqa: S311
    (source / "0").write_bytes(chance.randbytes(64 << 20))
    for number in range(1, 60):
        (source / str(number)).write_bytes(chance.randbytes(chance.randrange(600_000)))
    device = powercut.logged_device(LOGGED)
    script = f"""
{PROGRAM}
{powercut.start_logging(LOGGED, disk.device, log_disk.device)}
mkfs.ext4 -q -b 4096 -d {source} {device}
mount -t ext4 {device} /mnt; rm /mnt/0; files /mnt; umount /mnt; e2fsck -f -p {device} > /run/said; sync
{powercut.put_mark(LOGGED, PREPARED)}
[ "$(program begin {device})" = plain ]
{powercut.put_mark(LOGGED, DONE)}
{powercut.stop_logging(LOGGED)}
"""
    result = run_uml(Path("/"), script, disks=[disk, log_disk], modules=MODULES, timeout=200).check()
    return powercut.read_log(log_disk.path), result.stdout


def go_on(log: Log, moments: Sequence[int], work: Path) -> dict[int, tuple[str, str]]:
    """Have a machine go on with the disk as power cuts left it; return where each stood, and its files' digests."""
    work.mkdir()
    disks = [
        Disk(powercut.cut(log, one, work / f"{one}.img", seed=SEED, size=DISK_BYTES), f"cut{one}") for one in moments
    ]
    script = f"""
{PROGRAM}
for moment in {" ".join(map(str, moments))}; do
    device=/dev/disk/by-id/virtio-cut$moment
    echo "=== $moment"
    state=$(program go-on $device); echo $state; root=$device
    [ $state = plain ] || {{
        cryptsetup luksDump $device | grep -x "Subsystem:.*cryptpilot" > /dev/null
        cryptsetup open --readonly --key-file=/run/key $device opened; root=/dev/mapper/opened
    }}
    e2fsck -f -n $root > /run/said 2>&1 || cat /run/said
    mount -t ext4 -o ro,noload $root /mnt; files /mnt; umount /mnt
    [ $state = plain ] || cryptsetup close opened
done
"""
    result = run_uml(Path("/"), script, disks=disks, modules=MODULES, timeout=300).check()
    for disk in disks:
        disk.path.unlink()
    _, *parts = re.split(r"^=== (\d+)\n", result.stdout, flags=re.MULTILINE)
    found = {}
    for moment, text in zip(parts[::2], parts[1::2]):
        state, _, files = text.partition("\n")
        found[int(moment)] = (state, files)
    return found


def test_an_encryption_that_is_cut_short_loses_no_file_and_is_finished(lab: None, tmp_path: Path) -> None:  # noqa: ARG001
    log, files = record(tmp_path)
    assert len(files.splitlines()) == 59
    evenly = powercut.moments(log, CUTS // 2, seed=SEED, after=PREPARED, before=DONE)
    of_change = powercut.moments_of_change(log, CUTS // 2 + 4, seed=SEED, after=PREPARED, before=DONE)
    moments = sorted({*evenly, *of_change})
    assert len(moments) >= CUTS
    with ThreadPoolExecutor(2) as pool:
        batches = [moments[n::2] for n in range(2)]
        parts = pool.map(lambda batch: go_on(log, batch, tmp_path / f"from{batch[0]}"), batches)
        found = {moment: one for part in parts for moment, one in part.items()}
    bad = [f"cut at moment {moment}: {state}: {said}" for moment, (state, said) in found.items() if said != files]
    assert not bad, "\n".join(bad)
    assert sorted(found) == moments
    assert {state for state, _ in found.values()} >= {"plain", "begun"}

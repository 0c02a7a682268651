"""Power cuts on a volume with integrity: the journal keeps every block readable and every synced byte.

One machine initializes a volume, another works on it while all that reaches its disk is recorded, below the encryption;
then the disk is remade as power cuts at many moments may have left it, and machines look at each of these. Seeds fix
what is written and where the cuts are; in which order the kernel writes it is its own affair.

`init` does not wipe a volume, and what was never written cannot be read. So before anything is recorded, the file
system is filled once and emptied: after that, every block of the volume can be read, and after a cut every one is.
"""

from __future__ import annotations

import math
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab import powercut
from tests.lab.disk import Disk, blank_disk
from tests.lab.tree import SHARE
from tests.lab.uml import DISK_LETTERS, run_uml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.lab.powercut import Log

DISK_BYTES = 96 << 20
LOG_BYTES = 1 << 30
POOL_BYTES = 4 << 20
BLOCK = 4096
"""What the volume, and the file system's cache of it, write as a whole."""
FILES = 24
STEPS = 140
CUTS = 50
CUTS_WITHOUT_JOURNAL = 13
SEED = 2024


@dataclass(frozen=True)
class Step:
    """A piece of the pool written into a file at an offset, and synced with all of the file, or not; all in bytes."""

    name: str
    offset: int
    begin: int
    length: int
    synced: bool


@dataclass(frozen=True)
class Workload:
    """What is written. pool: random bytes, of which the files are made. The steps are done one after the other."""

    pool: bytes
    steps: tuple[Step, ...]


def make_workload() -> Workload:
    """Make new files, overwrite and append, a few bytes up to more than the integrity journal holds."""
    chance = random.Random(SEED)  # noqa: S311
    steps = []
    sizes = dict.fromkeys([f"file{n}" for n in range(FILES)], 0)
    for _ in range(STEPS):
        name = chance.choice(list(sizes))
        length = chance.randint(1, chance.choice([BLOCK, 16 * BLOCK, 64 * BLOCK, 256 * BLOCK]))
        offset = chance.choice([sizes[name], chance.randint(0, sizes[name])])
        steps.append(Step(name, offset, chance.randrange(POOL_BYTES - length), length, chance.random() < 0.7))
        sizes[name] = max(sizes[name], offset + length)
    return Workload(chance.randbytes(POOL_BYTES), tuple(steps))


def work_lines(workload: Workload, mark_on: str) -> Iterator[str]:
    """Return the lines that do the work; after each sync, a mark names the step that it completed."""
    for number, step in enumerate(workload.steps):
        place = f"skip={step.begin} seek={step.offset} count={step.length}"
        flags = f"iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc{',fsync' if step.synced else ''}"
        yield f"dd if={SHARE}/pool of=/mnt/{step.name} bs=1M status=none {place} {flags}"
        if step.synced:
            yield powercut.put_mark(mark_on, f"step={number}")


def promises(workload: Workload, marks: Sequence[str]) -> dict[str, list[bytes]]:
    """Return by name what the files synced before a cut may hold: what was synced, then what may be written over it.

    Any block of what was synced must be as in one of these.
    """
    done = max((int(mark.partition("=")[2]) for mark in marks if mark.startswith("step=")), default=-1)
    now: dict[str, bytes] = {}
    found: dict[str, list[bytes]] = {}
    for number, step in enumerate(workload.steps):
        old = now.get(step.name, b"")
        new = workload.pool[step.begin : step.begin + step.length]
        now[step.name] = old[: step.offset] + new + old[step.offset + step.length :]
        if step.synced and number <= done:
            found[step.name] = [now[step.name]]
        elif step.name in found:
            found[step.name].append(now[step.name])
        if step.synced and number > done:
            break  # This one may have been under way, and none after it.
    return found


def broken(files: Path, promised: dict[str, list[bytes]]) -> list[str]:
    """Return which blocks of the files found are not as promised."""
    wrong = []
    for name, versions in promised.items():
        path = files / name
        found = path.read_bytes() if path.exists() else b""
        size = len(versions[0])
        for begin in range(0, size, BLOCK):
            end = min(begin + BLOCK, size)
            if found[begin:end] not in [version[begin:end] for version in versions]:
                wrong.append(f"{name} at {begin} of {size} ({len(found)} found)")
    return wrong


@dataclass(frozen=True)
class Record:
    """What a machine did to a volume. base: its disk as it was before."""

    base: Path
    log: Log
    journal: bool


def run_product(tree: Path, script: str, volumes: Mapping[str, str], disks: Sequence[Disk], share: Path) -> str:
    """Run a script where the volumes are configured, given as devices by name; return what it complained of."""
    files = "".join(machines.exec_volume(name, dev, integrity=True) for name, dev in volumes.items())
    lines = f"{machines.NO_VOLUMES}{files}{FUNCTIONS}{script}"
    return run_uml(tree, lines, disks=disks, share=share, modules=[powercut.MODULE], timeout=300).check().stderr


# The product opens a volume with its journal; without, which it never does to one that is to last, cryptsetup does.
FUNCTIONS = """
open() {  # true|false VOLUME=DEVICE...
    local journal=$1 one; shift
    if $journal; then cryptpilot open "${@%%=*}" || true; return; fi
    for one in "$@"; do
        cryptsetup open --key-file /run/key --integrity-no-journal ${one#*=} ${one%%=*} || true
    done
}
"""


@pytest.fixture(scope="module", params=["bookworm", pytest.param("bullseye", marks=pytest.mark.matrix)])
def tree(tree: Path, request: pytest.FixtureRequest) -> Path:
    """The tree of a release; that of Debian 11 has a cryptsetup before 2.4, see test_composite.py."""
    return request.getfixturevalue("bullseye_tree") if request.param == "bullseye" else tree


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make_workload()


@pytest.fixture(scope="module")
def formatted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a new volume, in that a file system, and every block readable: what was never written is not.

    A file system that was filled does not do: ext4 keeps some blocks to itself.
    """
    work = tmp_path_factory.mktemp("formatted")
    disk = Disk(blank_disk(work / "disk.img", DISK_BYTES), "disk")
    script = """
cryptpilot init volume --yes
cryptpilot open volume
dd if=/dev/mapper/volume of=/dev/mapper/volume bs=4096 iflag=direct conv=noerror,sync,notrunc status=none || true
dd if=/dev/mapper/volume of=/dev/null bs=1M iflag=direct status=none
e2fsck -fn /dev/mapper/volume > /dev/null
"""
    run_product(tree, script, {"volume": disk.device}, [disk], work)
    return disk.path


def record(tree: Path, base: Path, work: Path, workload: Workload, *, journal: bool) -> Record:
    """Have a machine do the work while all that reaches the disk is recorded."""
    share = work / "share"
    share.mkdir()
    (share / "pool").write_bytes(workload.pool)
    disk = Disk(work / "disk.img", "disk")
    shutil.copy(base, disk.path)
    log_disk = Disk(blank_disk(work / "log.img", LOG_BYTES), "log")
    lines = "\n".join(work_lines(workload, "logged"))
    device = powercut.logged_device("logged")
    script = f"""
{powercut.start_logging("logged", disk.device, log_disk.device)}
open {str(journal).lower()} volume={device}
mount /dev/mapper/volume /mnt
{lines}
umount /mnt
cryptpilot close volume
{powercut.stop_logging("logged")}
"""
    run_product(tree, script, {"volume": device}, [disk, log_disk], share)
    log = powercut.read_log(log_disk.path)
    # The last thing done was a flush: nothing is uncertain, and the log tells all if it makes the very same disk.
    end = powercut.cut(log, len(log.entries), work / "end.img", seed=SEED, base=base)
    assert end.read_bytes() == disk.path.read_bytes()
    return Record(base, log, journal)


@dataclass(frozen=True)
class Found:
    """What a machine found on a disk after a power cut.

    opened, mounted, clean: whether the volume opened, the file system could be mounted, and was clean afterwards.
    unreadable: how many blocks of the volume cannot be read.
    promised: how many files had been synced by then.
    wrong: the blocks of these that are not as promised.
    said: what the programs said.
    """

    moment: int
    opened: bool
    unreadable: int
    mounted: bool
    promised: int
    wrong: list[str]
    clean: bool
    said: str


# look VOLUME: what is found goes to the shared directory's directory of that name.
LOOK = f"""
look() {{
    cd {SHARE}/$1
    exec 2> said
    [ -e /dev/mapper/$1 ] || return 0
    touch opened
    # With conv=noerror dd ends well whatever happens: the first one tells whether all can be read, the other counts.
    dd if=/dev/mapper/$1 of=/dev/null bs=1M status=none ||
        dd if=/dev/mapper/$1 of=/dev/null bs={BLOCK} conv=noerror 2> unreadable
    if mount -t ext4 /dev/mapper/$1 /mnt; then
        cp -r /mnt files || true
        umount /mnt
        if e2fsck -fn /dev/mapper/$1 >> said; then touch clean; fi
    fi
    cryptpilot close $1
}}
"""


def look_at(tree: Path, made: Record, workload: Workload, moments: Sequence[int], work: Path) -> list[Found]:
    """Have a machine look at the disk as power cuts at some moments leave it."""
    disks = []
    for moment in moments:
        (work / f"cut{moment}").mkdir(parents=True)
        image = powercut.cut(made.log, moment, work / f"{moment}.img", seed=SEED, base=made.base)
        disks.append(Disk(image, f"cut{moment}"))
    script = f"""{LOOK}
open {str(made.journal).lower()} {" ".join(f"{disk.name}={disk.device}" for disk in disks)}
for name in {" ".join(disk.name for disk in disks)}; do look $name; done
"""
    errors = run_product(tree, script, {disk.name: disk.device for disk in disks}, disks, work)
    for disk in disks:
        disk.path.unlink()
    return [_found(made, workload, moment, work / f"cut{moment}", errors) for moment in moments]


def _found(made: Record, workload: Workload, moment: int, left: Path, errors: str) -> Found:
    unreadable = left / "unreadable"
    promised = promises(workload, powercut.marks_before(made.log, moment))
    found = Found(
        moment=moment,
        opened=(left / "opened").exists(),
        unreadable=max(1, unreadable.read_text().count("error reading")) if unreadable.exists() else 0,
        mounted=(left / "files").exists(),
        promised=len(promised),
        wrong=broken(left / "files", promised),
        clean=(left / "clean").exists(),
        said=errors + (left / "said").read_text(errors="replace"),
    )
    shutil.rmtree(left)
    return found


def look_after_cuts(tree: Path, made: Record, workload: Workload, count: int, work: Path) -> list[Found]:
    """Cut the power at so many moments of a record, and look at what is left; two machines at a time."""
    moments = powercut.moments(made.log, count, seed=SEED)
    number = max(2, math.ceil(count / len(DISK_LETTERS)))
    batches = [moments[n::number] for n in range(number)]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda batch: look_at(tree, made, workload, batch, work / f"from{batch[0]}"), batches)
        return [one for batch in found for one in batch]


def test_with_its_journal_a_power_cut_loses_nothing_that_was_synced(
    tree: Path, formatted: Path, workload: Workload, tmp_path: Path
) -> None:
    made = record(tree, formatted, tmp_path, workload, journal=True)
    found = look_after_cuts(tree, made, workload, CUTS, tmp_path / "cuts")
    bad = [one for one in found if not (one.opened and one.mounted and one.clean) or one.unreadable or one.wrong]
    assert not bad
    assert len(found) == CUTS
    # And there was something to lose.
    assert max(one.promised for one in found) > FILES // 2
    torn = [there for one in found for _, there in powercut.surviving(made.log, one.moment, seed=SEED) if there]
    assert len(torn) >= CUTS // 4


def test_without_the_journal_a_power_cut_leaves_sectors_that_cannot_be_read(
    tree: Path, formatted: Path, workload: Workload, tmp_path: Path
) -> None:
    """Which shows that the other test would have seen them."""
    made = record(tree, formatted, tmp_path, workload, journal=False)
    found = look_after_cuts(tree, made, workload, CUTS_WITHOUT_JOURNAL, tmp_path / "cuts")
    assert all(one.opened for one in found)
    assert sum(one.unreadable > 0 for one in found) >= 2

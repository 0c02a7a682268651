"""What `cryptpilot init` of a large volume with integrity costs, beside cryptsetup's wiping of the whole device."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import machines
from tests.bench.table import GIB, MIB, columns, row, title
from tests.lab.disk import Disk, blank_disk
from tests.lab.tree import clone
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from tests.bench.workshop import Workshop

SIZE = 1 << 40
WIPED = 1 << 30
"""As much is wiped; that it takes so long is why it is not more."""
MEMORY = "256M"
"""Of the whole machine."""
ROOM = {"ext4": 20 << 30, "xfs": 2 << 30}
"""What an image takes on the host, and some more; it is gone again before the next one."""
KEY = "/run/key"
WIPE = (
    *("cryptsetup", "luksFormat", "--batch-mode", "--type=luks2", f"--key-file={KEY}"),
    *("--cipher=aes-xts-plain64", "--key-size=512", "--sector-size=4096", "--integrity=hmac-sha256"),
    *("--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"),
)


@dataclass(frozen=True)
class Cost:
    """What a command took. written: bytes, by the machine's account; allocated: by the image's. memory: by program."""

    seconds: float
    written: int
    allocated: int
    memory: dict[str, int]

    @property
    def own_memory(self) -> str:
        """What cryptpilot had at most."""
        return f"{self.memory['cryptpilot'] / MIB:.0f} MiB" if "cryptpilot" in self.memory else ""

    @property
    def other_memory(self) -> str:
        """What the largest of all else that ran had at most."""
        others = {name: most for name, most in self.memory.items() if name != "cryptpilot"}
        largest = max(others, key=others.__getitem__)
        return f"{others[largest] / MIB:.0f} MiB ({largest})"


def measure(shop: Workshop) -> None:
    """Print what making ext4 and xfs on a TiB with integrity costs, and what wiping it would."""
    work = shop.directory("integrity")
    tree = clone(shop.tree, work / "tree")
    machines.configure(
        tree,
        {
            kind: machines.exec_file(kind, f"/dev/disk/by-id/virtio-{kind}", key=KEY, makefs=kind, integrity=True)
            for kind in ROOM
        },
    )
    wipe = _cost(tree, Disk(blank_disk(work / "wiped.img", WIPED), "wiped"), *WIPE, "/dev/ubda")
    times = SIZE // WIPED
    found = {}
    for kind, room in ROOM.items():
        free = shutil.disk_usage(work).free
        if free < room:
            print(
                f"\n{kind} is left out: its image takes {room / GIB:.0f} GiB, {work} has {free / GIB:.0f}", flush=True
            )
            continue
        disk = Disk(blank_disk(work / f"{kind}.img", SIZE), kind)
        found[kind] = _cost(tree, disk, "cryptpilot", "init", kind, "--yes")
    title(f"cryptpilot init of 1 TiB with integrity, in user-mode Linux with {MEMORY} of memory in all")
    columns(
        ["", "written", "share", "allocated", "share", "time", "cryptpilot's memory", "any other's"],
        [
            *(_line(f"makefs {kind}", cost, SIZE) for kind, cost in found.items()),
            _line("cryptsetup luksFormat, wiping 1 GiB", wipe, WIPED),
        ],
    )
    row("aim", "at most 2 % written")
    row("wiping 1 TiB, as 1024 times 1 GiB", f"{times * wipe.written / GIB:.0f} GiB, {_hours(times * wipe.seconds)}")
    for kind, cost in found.items():
        written, seconds = cost.written / wipe.written / times, cost.seconds / wipe.seconds / times
        row(f"ratio of {kind} to that", f"{written:.4f} of the bytes, {seconds:.4f} of the time")


def _cost(tree: Path, disk: Disk, *command: str) -> Cost:
    """Run a command in a tree, in a machine with one disk, whose image is removed at once.

    What watches it runs with the host's Python beside the tree, which has none.
    """
    script = f"""
cd {machines.CHECKOUT}
export PYTHONDONTWRITEBYTECODE=1
for point in dev proc sys run; do mount --rbind /$point {tree}/$point; done
head -c 64 /dev/urandom > {KEY}
{sys.executable} -m tests.bench.watch ubda chroot {tree} {" ".join(command)}
"""
    try:
        result = run_uml(Path("/"), script, disks=[disk], memory=MEMORY, timeout=3600).check()
        allocated = disk.path.stat().st_blocks * 512
    finally:
        disk.path.unlink()
    facts = json.loads(result.stdout.splitlines()[-1])
    return Cost(facts["seconds"], facts["written"], allocated, facts["memory"])


def _line(name: str, cost: Cost, size: int) -> list[str]:
    return [
        name,
        f"{cost.written / GIB:.2f} GiB",
        f"{100 * cost.written / size:.2f} %",
        f"{cost.allocated / GIB:.2f} GiB",
        f"{100 * cost.allocated / size:.2f} %",
        f"{cost.seconds:.1f} s",
        cost.own_memory,
        cost.other_memory,
    ]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours"

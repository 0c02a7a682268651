"""Power cuts during `cryptpilot rotate`: one of the two values always opens the volume, and `rotate` finishes its job.

As with init (test_init_power.py) one machine does it while all that reaches the disk is recorded, the disk is remade as
power cuts may have left it, and machines do with each of these what an administrator would.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.system import luks_copies
from tests import machines
from tests.lab import powercut
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.lab.powercut import Log

DISK_BYTES = 32 << 20
LOG_BYTES = 256 << 20
CUTS = 30
SEED = 2026
LOGGED = "logged"
PREPARED = "prepared"
DONE = "done"


@dataclass(frozen=True)
class Found:
    """What a machine found on a disk after a power cut, and made of it.

    cut: the moment, and which of the disks that it may have left. opened: what `open` said. values: which of the two
    values key slots took then, and `rotated` which after rotate was run. slots: how many key slots there are in the
    end. whole: whether both copies of the header are there and say the same.
    """

    cut: tuple[int, int]
    marks: Sequence[str]
    opened: str
    values: str
    rotated: str
    slots: int
    whole: bool

    def trouble(self) -> list[str]:
        """Say what is not as it must be."""
        current = "current" in self.values
        checks = {
            "opens with neither value": self.opened != "" and self.values != "",
            "was not opened by the current value, which has a slot": current == ("previous" not in self.opened),
            "has no slot for the current value though rotate had said so": current or DONE not in self.marks,
            "rotate did not finish its job": self.rotated == "current",
            # an old slot that was being overwritten is nobody's any more, and cannot be told from somebody else's
            "has a key slot too many": self.slots == 1 or (self.slots == 2 and self.values == "current"),
            "its header is not whole": self.whole,
        }
        return [what for what, good in checks.items() if not good]


def configured(site: machines.Site, name: str, device: str) -> str:
    """Return the shell lines that configure a KMS volume; without a file system, which is none of this."""
    text = machines.volume_file(site, volume=name, dev=device).replace('makefs = "ext4"\n', "")
    return f"umask 077\ncat > /etc/cryptpilot/volumes/{name}.toml << 'END OF FILE'\n{text}END OF FILE\n"


def record(site: machines.Site, tree: Path, work: Path) -> Log:
    """Have a machine rotate a volume while all that reaches the disk is recorded."""
    disk = Disk(blank_disk(work / "disk.img", DISK_BYTES), "disk")
    log_disk = Disk(blank_disk(work / "log.img", LOG_BYTES), "log")
    script = f"""
rm -f /etc/cryptpilot/volumes/*
{configured(site, "volume", powercut.logged_device(LOGGED))}
{powercut.start_logging(LOGGED, disk.device, log_disk.device)}
cryptpilot init volume --yes
sync {powercut.logged_device(LOGGED)}
{machines.ROTATE_SECRET}
{powercut.put_mark(LOGGED, PREPARED)}
cryptpilot rotate volume
{powercut.put_mark(LOGGED, DONE)}
{powercut.stop_logging(LOGGED)}
"""
    machines.run_with_kms(site, tree, script, disks=[disk, log_disk], modules=[powercut.MODULE]).check()
    log = powercut.read_log(log_disk.path)
    # The log tells all if it makes the very same disk.
    end = powercut.cut(log, len(log.entries), work / "end.img", seed=SEED, size=DISK_BYTES)
    assert end.read_bytes() == disk.path.read_bytes()
    return log


LOOK = rf"""
for value in secret previous; do base64 -d {machines.KMS_FILES}/$value > /run/$value; done
values() {{
    for one in secret previous; do
        cryptsetup open --test-passphrase --key-file /run/$one /dev/disk/by-id/virtio-$1 2> /dev/null || continue
        echo $one
    done
}}
echo "=== open all"
cryptpilot open $all 2>&1 || true
for name in $all; do echo "=== values $name"; values $name; done
echo "=== rotate all"
cryptpilot rotate $all 2>&1 || true
for name in $all; do echo "=== rotated $name"; values $name; done
echo "=== end all"
cryptpilot close $all > /dev/null
"""


def look(site: machines.Site, tree: Path, log: Log, cuts: Sequence[tuple[int, int]], work: Path) -> list[Found]:
    """Have a machine open the disk as power cuts leave it, and rotate it; cuts: moments, each with a seed."""
    work.mkdir()
    disks = []
    for moment, seed in cuts:
        image = work / f"{moment}-{seed}.img"
        disks.append(Disk(powercut.cut(log, moment, image, seed=seed, size=DISK_BYTES), f"cut{moment}-{seed}"))
    files = "".join(configured(site, disk.name, disk.device) for disk in disks)
    names = " ".join(disk.name for disk in disks)
    script = f"rm -f /etc/cryptpilot/volumes/*\n{files}all='{names}'\n{LOOK}"
    result = machines.run_with_kms(site, tree, script, disks=disks, timeout=300).check()
    _, *parts = re.split(r"^=== (\w+) ([\w-]+)\n", result.stdout, flags=re.MULTILINE)
    told = {(kind, of): text for kind, of, text in zip(parts[::3], parts[1::3], parts[2::3])}
    found = []
    for one, disk in zip(cuts, disks):
        opened = re.search(rf"^{disk.name}: (/dev/mapper/.*)", told["open", "all"], re.MULTILINE)
        copies = whole_copies(disk.path)
        found.append(
            Found(
                cut=one,
                marks=powercut.marks_before(log, one[0]),
                opened=opened[1] if opened else "",
                values=named(told["values", disk.name]),
                rotated=named(told["rotated", disk.name]),
                slots=len(copies[0]["keyslots"]) if copies else 0,
                whole=len(copies) == 2 and copies[0] == copies[1],
            )
        )
        disk.path.unlink()
    return found


def named(values: str) -> str:
    """Name the values of a secret that a script found by the files they are in."""
    return values.strip().replace("secret", "current").replace("\n", ", ")


def whole_copies(image: Path) -> list[dict[str, Any]]:
    """Return the metadata of those copies of a disk's header that are whole."""
    descriptor = os.open(image, os.O_RDONLY)
    try:
        return [copy.metadata() for copy in luks_copies.copies(descriptor)]
    finally:
        os.close(descriptor)


def test_a_rotation_that_is_cut_short_leaves_a_key_and_can_be_finished(tree: Path, tmp_path: Path) -> None:
    site = machines.make_site(tmp_path / "kms")
    log = record(site, tree, tmp_path)
    # A rotation is hardly more than a score of writes: each moment is one to be cut at, and some more than once.
    first = powercut.moment_of(log, PREPARED)
    moments = powercut.moments_of_change(log, min(CUTS, len(log.entries) - first + 1), seed=SEED, after=PREPARED)
    cuts = [(moments[number % len(moments)], SEED + number // len(moments)) for number in range(CUTS)]
    with ThreadPoolExecutor(2) as pool:
        # each with its KMS
        parts = pool.map(lambda half: look(site, tree, log, cuts[half::2], tmp_path / f"half{half}"), range(2))
        found = sorted((one for part in parts for one in part), key=lambda one: one.cut)
    bad = [f"cut at {one.cut}: {one.trouble()}: {one}" for one in found if one.trouble()]
    assert not bad, "\n".join(bad)
    assert len(found) == CUTS
    # And every state was met.
    assert {one.values for one in found} == {"previous", "current, previous", "current"}

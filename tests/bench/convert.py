"""What `cryptpilot convert` costs, beside a copy of the used blocks and beside encrypting all of it in place."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import machines
from tests.bench.table import GIB, MIB, columns, row, title
from tests.boot import stock
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from tests.bench.workshop import Workshop

IMAGE = 4 << 30
FILES = 1 << 30
"""Bytes that the file systems of the image have in use."""
DISK = 12 << 30
HEADER = 32 << 20
"""Bytes that `cryptsetup reencrypt` is given for its header, behind the file system."""
KEY = "/run/key"
IMAGES_OWN = ("cryptpilot", "systemctl", "grub-mkconfig", "grub-install")
"""What is run in the image: its dracut, by `cryptpilot initrd rebuild`, and the rest of its own programs."""
COPY = ("e2image", "dd")
WAYS = {
    "dd": "dd conv=sparse of the image: its used blocks",
    "convert": "cryptpilot convert",
    "reencrypt": "cryptsetup reencrypt --encrypt of the root, in place",
}
AIM = 1.3
MEMORY_AIM = 300 << 20


@dataclass(frozen=True)
class Cost:
    """What a command took; see tests.bench.watch."""

    seconds: float
    written: int
    memory: dict[str, int]
    together: int
    in_memory: int
    programs: dict[str, float]

    @property
    def largest(self) -> tuple[str, int]:
        """The program that had most, and how much."""
        return max(self.memory.items(), key=lambda one: one[1])

    def of(self, *names: str) -> float:
        """How many seconds programs of these names were at work."""
        return sum(seconds for name, seconds in self.programs.items() if name in names)


def measure(shop: Workshop) -> None:
    """Print what the three ways cost, one after the other in one machine."""
    work = shop.directory("convert")
    tree = machines.installed_tree(work / "tree", stock.PACKAGES)
    volume = machines.exec_file("root", "/dev/disk/by-partlabel/root", key=KEY)
    machines.configure(tree, {"root": volume.replace("\n[encrypt", "auto_open = true\n\n[encrypt")})
    disks = [Disk(blank_disk(work / f"{name}.img", DISK), name) for name in ("in", "out", "place")]
    # watched by the host's Python beside the tree, which has none
    script = _script(tree, stock.image(stock.Stock()))
    result = run_uml(Path("/"), script, disks=disks, modules=stock.UML_MODULES, timeout=3600).check()
    said = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    _show({name: _cost(said[name]) for name in WAYS}, int(said["used"]), int(said["allocated"]))


def _cost(text: str) -> Cost:
    facts = json.loads(text)
    facts.pop("discarded")
    return Cost(**facts)


def _show(costs: dict[str, Cost], used: int, allocated: int) -> None:
    title(f"An image of {IMAGE / GIB:.0f} GiB with {used / GIB:.2f} GiB in use, in user-mode Linux, once each")
    base = costs["dd"]
    columns(
        ["", "written", "to dd", "time", "to dd", "largest program", "all at a time", "in tmpfs"],
        [
            [
                text,
                f"{costs[name].written / GIB:.2f} GiB",
                f"{costs[name].written / base.written:.2f}",
                f"{costs[name].seconds:.1f} s",
                f"{costs[name].seconds / base.seconds:.2f}",
                f"{costs[name].largest[1] / MIB:.0f} MiB ({costs[name].largest[0]})",
                f"{costs[name].together / MIB:.0f} MiB",
                f"{costs[name].in_memory / MIB:.0f} MiB",
            ]
            for name, text in WAYS.items()
        ],
    )
    row("aim for cryptpilot convert", f"{AIM} times the copy of the used blocks, {MEMORY_AIM / MIB:.0f} MiB")
    ours = costs["convert"]
    copied = ours.of(*COPY)
    parts = {
        "copying": copied,
        "looking and checking": ours.of("e2fsck", "dumpe2fs", "blkid"),
        "the image's dracut, GRUB, systemctl": ours.of(*IMAGES_OWN),
    }
    for text, seconds in parts.items():
        row(f"  convert: {text}", f"{seconds:.1f} s")
    row("  convert: all else", f"{ours.seconds - sum(parts.values()):.1f} s")
    row("the new image takes", f"{allocated / GIB:.2f} GiB, {allocated / used:.2f} times the old one")
    row("ratio of its copying alone to dd, in time", f"{copied / base.seconds:.2f}")
    row("ratio of reencrypt to it, bytes written", f"{costs['reencrypt'].written / ours.written:.2f}")
    print(
        "written: to the disk that holds the result, by the kernel's account, once all is synced.\n"
        "largest program: its peak (VmHWM); all at a time: the sum of what all have in memory (VmRSS), in which pages\n"
        "that are shared count several times. Starting a program takes some twenty times as long here as on a machine\n"
        "of its own, and dracut starts thousands; there are no AES instructions here."
    )


def _script(tree: Path, base: Path) -> str:
    """Write what the machine does: an image made from a smaller one, and filled; then the three ways."""
    return f"""
cd {machines.CHECKOUT}
export PYTHONDONTWRITEBYTECODE=1
for name in in:ubda out:ubdb; do
    mkfs.ext4 -q -T largefile4 -O ^has_journal -E lazy_itable_init=0,nodiscard /dev/${{name#*:}}
    mkdir /run/${{name%:*}}; mount /dev/${{name#*:}} /run/${{name%:*}}
done
mount --bind {tree} {tree}
for point in dev proc sys run; do mount --rbind /$point {tree}/$point; done
cost() {{ printf '%s ' $1; shift; {sys.executable} -m tests.bench.watch "$@"; }}
forget() {{ sync; echo 3 > /proc/sys/vm/drop_caches; }}
head -c 64 /dev/urandom > {KEY}
cp --sparse=always {base} /run/in/in.img
chroot {tree} /bin/bash -eu << 'END OF SCRIPT' >&2
cd /run/in
truncate -s {IMAGE} in.img
sfdisk --quiet --relocate gpt-bak-std in.img
echo ", +" | sfdisk --quiet --no-reread -N 1 in.img
loop=$(losetup --find --show --partscan in.img)
e2fsck -f -p ${{loop}}p1; resize2fs ${{loop}}p1
mount ${{loop}}p1 /mnt; mkdir /mnt/opt/files
unused=$(({FILES} - $(stat --file-system --format='(%b - %f) * %S' /mnt)))
# few programs: starting one takes long here
for n in $(seq $((unused >> 24))); do head -c 16M /dev/urandom > /mnt/opt/files/$n; done
umount /mnt
dd if=${{loop}}p1 of=/dev/ubdc bs=64K conv=sparse,notrunc,fsync status=none
echo $(($(blockdev --getsize64 ${{loop}}p1) / 4096 * 4096 + {HEADER})) > /run/size
losetup -d $loop
END OF SCRIPT
forget
echo "used $(($(stat --format=%b /run/in/in.img) * 512))"
cost dd ubdb dd if=/run/in/in.img of=/run/out/copy.img bs=64K conv=sparse,fsync status=none
rm /run/out/copy.img; forget
cost convert ubdb chroot {tree} cryptpilot convert /run/in/in.img /run/out/out.img --volume root
echo "allocated $(($(stat --format=%b /run/out/out.img) * 512))"
forget
loop=$(losetup --find --show --sizelimit $(cat /run/size) /dev/ubdc)
cost reencrypt ubdc chroot {tree} cryptsetup reencrypt --encrypt --type=luks2 --batch-mode \\
    --reduce-device-size={HEADER // MIB}M --cipher=aes-xts-plain64 --key-size=512 --sector-size=4096 \\
    --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file={KEY} $loop
"""

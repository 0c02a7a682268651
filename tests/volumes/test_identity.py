"""Disks that share a secret and change places: what is bound to a name, and what is not, on real devices."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 32 << 20
IDENTITIES = "/etc/cryptpilot/identities"

# What a test asks again and again. part: begins a part of the output. refused: runs what must fail. inside: says whose
# file system a volume has. swap: has the disks change places, as a hostile host or a slip does.
TOOLS = r"""
part() { echo "=== $1"; }
refused() { if "$@" 2>&1; then echo "NOT REFUSED: $*"; fi; }
inside() { mount /dev/mapper/$1 /mnt; cat /mnt/whose; umount /mnt; }
swap() {
    first=$(readlink /dev/disk/by-id/virtio-root); second=$(readlink /dev/disk/by-id/virtio-data1)
    ln -sfn $second /dev/disk/by-id/virtio-root; ln -sfn $first /dev/disk/by-id/virtio-data1
}
"""
MADE = """
cryptpilot init root data1 --yes
cryptpilot open root data1
for name in root data1; do mount /dev/mapper/$name /mnt; echo "the disk of $name" > /mnt/whose; umount /mnt; done
cryptpilot close root data1
"""


def run(tree: Path, work: Path, script: str) -> dict[str, str]:
    """Run a script with two disks whose volumes share a secret; return the parts of what it said, by their names."""
    disks = [Disk(blank_disk(work / f"{name}.img", SIZE), name) for name in ("root", "data1")]
    files = "".join(machines.exec_volume(disk.name, disk.device) for disk in disks)
    result = run_uml(tree, f"{machines.NO_VOLUMES}{files}{TOOLS}{script}", disks=disks, timeout=240).check()
    assert "NOT REFUSED" not in result.stdout, result
    _, *parts = re.split(r"^=== (.*)\n", result.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2]))


def shown(text: str) -> dict[str, dict[str, Any]]:
    return {one["volume"]: one for one in json.loads(text)}


def test_disks_that_changed_places_are_refused_and_bound_only_on_purpose(tree: Path, tmp_path: Path) -> None:
    said = run(
        tree,
        tmp_path,
        f"""
umask 0
{MADE}
stat --format '%a %n' {IDENTITIES} {IDENTITIES}/*
cryptpilot header backup data1 /run/data1.header
cryptpilot header backup root /run/root.header
part "in their places"
cryptpilot config check
part "shown"
cryptpilot show --json
part "as before this version"
mv {IDENTITIES} /run/kept
cryptpilot config check
cryptpilot open root; inside root; cryptpilot close root
part "swapped and not bound"
swap
cryptpilot open root; inside root; cryptpilot close root
cryptpilot config check
part "swapped"
mv /run/kept {IDENTITIES}
refused cryptpilot open root data1
part "checked"
refused cryptpilot config check --keep-checking
part "shown swapped"
cryptpilot show --json
part "everything else"
refused cryptpilot open root --recovery-key < /dev/null
refused cryptpilot header backup root /run/another
refused cryptpilot recovery-key root
refused cryptpilot header restore root /run/data1.header --yes --force
echo "auto_open = true" | cat - /etc/cryptpilot/volumes/root.toml > /run/root.toml
cp /run/root.toml /etc/cryptpilot/volumes/root.toml
refused cryptpilot boot-service --stage system root
ls /dev/mapper /run/another 2> /dev/null || true
part "bound with another secret"
cp /run/key /run/good; head -c 64 /dev/urandom > /run/key
refused cryptpilot bind root
cp /run/good /run/key
refused cryptpilot open root
part "bound on purpose"
cryptpilot bind root data1
cryptpilot open root; inside root
cryptpilot bind root
cryptpilot config check
cryptpilot close root
part "back in their places"
swap
refused cryptpilot open root
cryptpilot bind data1 root
cryptpilot open root data1; inside root; inside data1; cryptpilot close root data1
part "the header put back"
head -c 4M /dev/zero > /dev/disk/by-id/virtio-root
refused cryptpilot header restore root /run/data1.header --yes --force
cryptpilot header restore root /run/root.header --yes
cryptpilot open root; inside root; cryptpilot close root
cryptpilot config check
""",
    )
    other = "holds another volume than the one that was initialized or bound as {}: its UUID is"
    assert "in their places" in said
    assert said["in their places"] == "data1: ok\nroot: ok\n"
    assert {one["bound"] for one in shown(said["shown"]).values()} == {True}
    # the attack, and that it takes what no identity is written of
    for part, whose in (("as before this version", "root"), ("swapped and not bound", "data1")):
        assert f"the disk of {whose}\n" in said[part]
        assert re.findall(r"^(\w+): warning: its secret also opens (\w+),", said[part], re.MULTILINE) == [
            ("data1", "root"),
            ("root", "data1"),
        ]
        assert "cryptpilot bind root" in said[part]
    for name in ("root", "data1"):
        assert f"error: {name}: /dev/disk/by-id/virtio-{name} {other.format(name)}" in said["swapped"]
        assert f"{name}: error: /dev/disk/by-id/virtio-{name} {other.format(name)}" in said["checked"]
        assert (
            f'if disks changed places, put them back or correct "dev"; if this one belongs here: cryptpilot bind {name}'
            in said["checked"]
        )
        assert shown(said["shown swapped"])[name]["status"] == "check-failed"
        assert other.format(name) in shown(said["shown swapped"])[name]["detail"]
    assert said["everything else"].count(other.format("root")) == 5
    assert said["everything else"].endswith("control\n")
    assert "no key slot takes it" in said["bound with another secret"]
    assert other.format("root") in said["bound with another secret"]
    bound = said["bound on purpose"]
    assert re.search(
        r"^root: is bound to the volume on \S+ \(UUID \S+\), in place of the one with UUID", bound, re.MULTILINE
    )
    assert "the disk of data1\nroot: was bound to the volume on" in bound
    assert bound.count(": ok\n") == 2
    assert other.format("root") in said["back in their places"]
    assert "the disk of root\nthe disk of data1\n" in said["back in their places"]
    assert f"/run/data1.header {other.format('root')}" in said["the header put back"]
    assert "the disk of root\n" in said["the header put back"]
    assert said["the header put back"].endswith("data1: ok\nroot: ok\n")


# cryptsetup that has the power cut right before the volume is marked as complete, or mkfs right after it is formatted.
CUT = r"""
cut_at() {
    program=$(readlink -f $(command -v $1)); cp $program /run/really
    printf '#!/bin/sh\ncase "$1" in %s) kill -KILL $PPID; exit 1; esac\nexec /run/really "$@"\n' "$2" > /run/cut
    chmod +x /run/cut; mount --bind /run/cut $program
    refused cryptpilot init root --yes $3
    umount $program
}
"""


def test_what_a_power_cut_leaves_of_an_init_can_be_finished_and_opened(tree: Path, tmp_path: Path) -> None:
    """Bound to the old or to the new, a volume is never complete and refused."""
    said = run(
        tree,
        tmp_path,
        f"""{CUT}
{MADE}
uuid() {{ cryptsetup luksUUID /dev/disk/by-id/virtio-root; }}
bound() {{ sed -n 's/^uuid = "\\(.*\\)"/\\1/p' {IDENTITIES}/root.toml; }}
part "cut after the identity was written"
cut_at cryptsetup config --force-reinit
[ $(uuid) = $(bound) ] && echo "bound to the new"
cryptpilot show root
refused cryptpilot open root
cryptpilot init root --yes
cryptpilot open root; cryptpilot close root
part "cut before the identity was written"
old=$(uuid)
cut_at mkfs.ext4 '*' --force-reinit
[ $(bound) = $old ] && [ $(uuid) != $old ] && echo "bound to the old"
cryptpilot show root
refused cryptpilot open root
cryptpilot init root --yes
[ $(uuid) = $(bound) ] && echo "bound to the new"
cryptpilot open root; cryptpilot close root
part "nowhere to write it"
mount --bind /etc/cryptpilot /etc/cryptpilot; mount -o remount,bind,ro /etc/cryptpilot
before=$(sha256sum < /dev/disk/by-id/virtio-root)
refused cryptpilot init root --yes --force-reinit
[ "$before" = "$(sha256sum < /dev/disk/by-id/virtio-root)" ] && echo "not touched"
refused cryptpilot bind root
umount /etc/cryptpilot
part "nowhere to write it, and nothing written"
rm {IDENTITIES}/root.toml
mount --bind /etc/cryptpilot /etc/cryptpilot; mount -o remount,bind,ro /etc/cryptpilot
cryptpilot init root --yes --force-reinit 2>&1
cryptpilot open root; cryptpilot close root
umount /etc/cryptpilot
cryptpilot bind root
cryptpilot config check
""",
    )
    for cut, bound in (("after", "new"), ("before", "old")):
        part = said[f"cut {cut} the identity was written"]
        assert f"bound to the {bound}\n" in part
        assert "initializing: init was interrupted" in part
        assert "is not completely initialized: init was interrupted" in part
        assert part.count("is initialized; open it with") == 1
        assert "root: /dev/mapper/root is open\n" in part
    read_only = said["nowhere to write it"]
    assert read_only.count(f"{IDENTITIES}/root.toml: cannot be written: Read-only file system") == 2
    assert "not touched\n" in read_only
    unbound = said["nowhere to write it, and nothing written"]
    assert (
        f"warning: root: is not bound to its disk: {IDENTITIES}/root.toml: cannot be written: Read-only file" in unbound
    )
    assert "root: /dev/mapper/root is open\n" in unbound
    assert unbound.endswith("data1: ok\nroot: ok\n")

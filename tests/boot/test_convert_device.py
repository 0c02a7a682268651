"""A disk is converted where it is: it boots from KMS, and a power cut at any moment loses no file.

One machine converts a disk while all that reaches it is recorded. Then it is remade as power cuts at moments all
through that may have left it, and the same command goes on with each.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot import stock
from tests.boot.conversion import COMPARE, FROM_SECRET, LEFT_BEHIND, Row, Workshop, boot, require_kept
from tests.boot.stock import Stock
from tests.lab import powercut, qemu
from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.tree import SHARE
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.lab.net import Namespace
    from tests.lab.powercut import Log

STOCK = Stock("ext4", "ext4")
LOG_BYTES = 8 << 30
SEED = 2026
LOGGED, PREPARED, DONE = "logged", "prepared", "done"
OPTIONS = f"--volume root --secret-file {SHARE}/secret"
FILES = """
files() { (cd $1; find . -xdev -type f ! -path './boot/*' ! -name sparse -print0 | sort -z | xargs -0 sha256sum); }
"""
"""A shell function that prints the digest of each file of the root below a directory."""


@dataclass(frozen=True)
class Recorded:
    """A disk that was converted. log: of all that reached it meanwhile. key: its recovery key. said: by the command."""

    workshop: Workshop
    log: Log
    key: str
    said: str


@pytest.fixture(scope="module")
def recorded(site: machines.Site, converter: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    work = tmp_path_factory.mktemp("device")
    (work / "images").mkdir()
    workshop = Workshop(site, converter, work / "images")
    original = workshop.image(STOCK)
    before = sha256(original)
    disk = Disk(workshop.image(STOCK, "out.img"), "disk")
    log_disk = Disk(blank_disk(work / "log.img", LOG_BYTES), "log")
    volume = machines.volume_file(site, dev=STOCK.dev).replace('makefs = "ext4"', "")
    machines.configure(converter, {machines.ROOT: volume}, machines.settings(timeout=240))
    (workshop.share / "secret").write_text(site.secret)
    script = f"""
{FILES}
{powercut.start_logging(LOGGED, disk.device, log_disk.device)}
loop=$(losetup --find --show --partscan {powercut.logged_device(LOGGED)})
mount -o ro,noload ${{loop}}p1 /mnt; files /mnt > {SHARE}/files; umount /mnt
cryptpilot convert --device $loop {OPTIONS} --dry-run
mkdir -p /run/busy; mount -o ro,noload ${{loop}}p2 /run/busy
cryptpilot convert --device $loop {OPTIONS} 2>&1 && exit 1
umount /run/busy
cryptpilot convert --device ${{loop}}p1 {OPTIONS} 2>&1 && exit 1
sync
{powercut.put_mark(LOGGED, PREPARED)}
cryptpilot convert --device $loop {OPTIONS} --recovery-key > {SHARE}/recovery
sync
{powercut.put_mark(LOGGED, DONE)}
cryptpilot convert --device $loop {OPTIONS} 2>&1 && exit 1
cryptpilot show || true
losetup -d $loop
{powercut.stop_logging(LOGGED)}
"""
    result = run_uml(
        converter,
        script,
        disks=[disk, log_disk],
        share=workshop.share,
        modules=[powercut.MODULE, *stock.UML_MODULES],
        timeout=1500,
    ).check()
    assert sha256(original) == before
    return Recorded(
        workshop,
        powercut.read_log(log_disk.path),
        (workshop.share / "recovery").read_text(),
        result.stdout + result.stderr,
    )


@pytest.mark.matrix
def test_a_disk_that_was_converted_in_place_boots_from_kms(
    recorded: Recorded, network: Namespace, tmp_path: Path
) -> None:
    """Its files are the ones that were there; what is in use is refused, and so is what is converted already."""
    for said in (
        "ext4, encrypted where it is as volume root; it gives up 32 MiB for that",
        "is in use (mounted, swap, or part of another device)",
        "is a partition",
        "partition 1 is a cryptpilot volume already",
    ):
        assert said in recorded.said
    assert re.fullmatch(r"(\w+-)+\w+\n", recorded.key)
    check = f"""
loop=$(losetup --find --show --partscan --read-only {SHARE}/out.img)
tr -d '\\n' < {SHARE}/recovery | cryptsetup open --test-passphrase --key-file=- ${{loop}}p1; losetup -d $loop
"""
    result = recorded.workshop.run(f"{check}{LEFT_BEHIND}{FROM_SECRET}{COMPARE}").check()
    left, rest = result.stdout.split("== left behind\n")[1].split("== files\n")
    files, compared = rest.split("== compared\n")
    assert (left, files.split()) == ("", ["files", "in.img", "out.img", "recovery", "secret"])
    require_kept(compared.split("== loaded\n")[0])
    boot(Row(STOCK), recorded.workshop, network, tmp_path / "booted")


# Of each disk: what there is of it, the same command, and then all files. What is plain would take minutes to convert:
# it is only brought in order, but for those that are to be converted as a whole.
GO_ON = f"""
{FILES}
base64 -d {SHARE}/secret > /run/key
for name in $names; do
    loop=$(losetup --find --show --partscan {SHARE}/$name.img)
    echo "=== state $name"
    cryptpilot convert --device $loop {OPTIONS} --dry-run 2>&1 || true
    echo "=== done $name"
    plain=$(blkid -p -s TYPE -o value ${{loop}}p1 | grep -x ext4 || true)
    if [ "$plain" ] && ! echo " $whole " | grep -q " $name "; then
        # as the command does it: tests/unit/test_ext4.py
        e2fsck -f -p ${{loop}}p1 > /dev/null || [ $? = 1 ] || e2fsck -f -y ${{loop}}p1 > /dev/null || [ $? = 1 ]
        echo "in order"
        root=${{loop}}p1
    else
        cryptpilot convert --device $loop {OPTIONS} 2>&1 || echo FAILED
        cryptsetup open --readonly --key-file=/run/key ${{loop}}p1 opened && root=/dev/mapper/opened
    fi
    echo "=== fsck $name"
    e2fsck -f -n $root > /run/fsck 2>&1 && echo clean || cat /run/fsck
    echo "=== lost $name"
    mount -o ro,noload $root /mnt; files /mnt > /run/files; umount /mnt
    diff {SHARE}/files /run/files | sed -n 's/^< [0-9a-f]*  .//p'
    [ ! -e /dev/mapper/opened ] || cryptsetup close opened
    losetup -d $loop; rm {SHARE}/$name.img
done
"""
CUTS = 20
BATCH = 5
STATES = {"was interrupted, and goes on": "goes on", "is a cryptpilot volume already": "complete"}
"""What there is of a conversion, by what the command says of it; an ordinary disk by what it says else."""
DONE_BY = {"plain": "in order", "goes on": "is converted", "complete": "nothing is left to do"}
"""What is said once it was gone on with."""
ALLOWED_TO_CHANGE = ("/etc/fstab", "/var/", "/etc/")


@pytest.mark.matrix
def test_no_power_cut_loses_a_file_and_the_same_command_goes_on(recorded: Recorded) -> None:
    moments = chosen(recorded)
    assert len(moments) >= CUTS
    found: dict[tuple[str, str], str] = {}
    for start in range(0, len(moments), BATCH):
        found |= gone_on(recorded, moments[start : start + BATCH])
    bad = []
    states = set()
    for moment in moments:
        name = f"cut{moment}"
        state = next((state for said, state in STATES.items() if said in found["state", name]), "plain")
        states.add(state)
        lost = [line for line in found["lost", name].splitlines() if not line.startswith(ALLOWED_TO_CHANGE)]
        if lost or DONE_BY[state] not in found["done", name] or found["fsck", name] != "clean\n":
            said = (found[kind, name] for kind in ("state", "done", "fsck"))
            bad.append(f"{name} ({state}): lost {lost}: {' '.join(said)}")
    assert not bad, "\n".join(bad)
    assert states == {"plain", "goes on", "complete"}


def chosen(recorded: Recorded) -> list[int]:
    """Choose moments: some before the header of the volume is on the disk, all around that, most of them after it.

    Half of those that are left to chance are right behind a flush, where one state ends and the next begins.
    """
    chance = random.Random(SEED)  # noqa: S311
    begin, end = (powercut.moment_of(recorded.log, mark) for mark in (PREPARED, DONE))
    header = first_encrypted(recorded)
    flushes = [number for number, entry in enumerate(recorded.log.entries) if powercut.Flag.FLUSH in entry.flags]
    found = {begin, header - 4100, header - 2, header - 1, header, header + 1, end - 1}
    for first, last, count in ((begin, header, 3), (header, end, 5)):
        found |= {*chance.sample(range(first, last), count)}
        found |= {number + 1 for number in chance.sample([one for one in flushes if first < one < last], count)}
    return sorted(found)


def gone_on(recorded: Recorded, moments: Sequence[int], whole: Sequence[int] = ()) -> dict[tuple[str, str], str]:
    """Remake the disk as power cuts left it, go on with each, and return what was found, by kind and name."""
    share = recorded.workshop.share
    for moment in moments:
        powercut.cut(recorded.log, moment, share / f"cut{moment}.img", seed=SEED, base=share / "in.img")
    names = " ".join(f"cut{moment}" for moment in moments)
    wholes = " ".join(f"cut{moment}" for moment in whole)
    result = recorded.workshop.run(f"names='{names}' whole='{wholes}'\n{GO_ON}", timeout=2400).check()
    _, *parts = re.split(r"^=== (\w+) (\w+)\n", result.stdout, flags=re.MULTILINE)
    return {(kind, of): text for kind, of, text in zip(parts[::3], parts[1::3], parts[2::3])}


@pytest.mark.matrix
def test_a_run_that_was_cut_short_while_the_system_was_mended_begins_again(recorded: Recorded) -> None:
    """As a whole: what was mended by then is found, and mended once more."""
    first = powercut.moment_of(recorded.log, PREPARED)
    moment = first + (first_encrypted(recorded) - first) * 9 // 10
    found = gone_on(recorded, [moment], whole=[moment])
    name = f"cut{moment}"
    assert "goes on" not in found["state", name]
    assert "is converted" in found["done", name], found
    assert found["fsck", name] == "clean\n"
    assert [line for line in found["lost", name].splitlines() if not line.startswith(ALLOWED_TO_CHANGE)] == []


def first_encrypted(recorded: Recorded) -> int:
    """Return the moment at which the header of the volume is written before its data; its copy came before."""
    begin = powercut.moment_of(recorded.log, PREPARED)
    found: list[tuple[int, int]] = []
    with recorded.log.path.open("rb") as file:
        for number, entry in enumerate(recorded.log.entries[begin:], begin):
            if entry.length and powercut.Flag.DISCARD not in entry.flags:
                file.seek(entry.payload)
                found += [(entry.start, number)] if file.read(6) == b"LUKS\xba\xbe" else []
    return min(found)[1]


@pytest.mark.matrix
def test_a_machine_that_boots_in_the_middle_says_what_to_do_and_changes_nothing(
    recorded: Recorded, network: Namespace, tmp_path: Path
) -> None:
    """It asks no KMS either: the secret is not for a header that says that the data are plain."""
    last = powercut.moment_of(recorded.log, DONE)
    moment = (first_encrypted(recorded) + last) // 2
    disk = powercut.cut(recorded.log, moment, tmp_path / "disk.img", seed=SEED, base=recorded.workshop.share / "in.img")
    before = sha256(disk)
    site = recorded.workshop.site
    site.behave("ok")
    site.forget_requests()
    machine = qemu.Machine(None, None, "", (Disk(disk, "system"),), netns=network)
    with machines.running_kms(site, network):
        result = qemu.boot(
            machine, timeout=400, log=tmp_path / "console.log", until="convert --device DISK --volume root"
        )
    console = result.check(qemu.Ending.SEEN).console
    assert "is not completely converted: the conversion was interrupted, and no data is lost" in console
    assert site.requests() == []
    assert sha256(disk) == before

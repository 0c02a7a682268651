"""Debian testing: the initrds that the newest dracut makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import machines
from tests.boot.matrix import STACKS, SYSTEMD, Bench, Release, Row, require_boot
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_ext4
from tests.lab.tree import SHARE, TESTING, clone, in_chroot

RELEASE = TESTING

ROWS = [
    Row("systemd-networkd"),
    pytest.param(Row("network-manager", hostonly=True), marks=pytest.mark.matrix),
    pytest.param(Row("network-manager", systemd=False), marks=pytest.mark.matrix),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_machine_boots(row: Row, release: Release, bench: Bench) -> None:
    require_boot(row, release, bench)


@pytest.mark.matrix
@pytest.mark.parametrize("systemd", [True, False], ids=["systemd", "no-systemd"])
def test_temporary_volumes_alone_bring_along_what_runs_their_hooks(
    systemd: bool, release: Release, bench: Bench
) -> None:
    """What else would depend on dracut's module for its main loop is left out here."""
    tree = clone(release.tree, bench.work / "tree")
    (tree / "etc/cryptpilot/volumes/root.toml").unlink()
    machines.configure(tree, {"scratch": machines.scratch_file()})
    omitted = {"crypt", "lvm", "mdraid", "btrfs", "resume", *([] if systemd else SYSTEMD)}
    image = machines.make_image(tree, bench.work / "initrd.img", "--omit", " ".join(sorted(omitted)))
    listing = in_chroot(tree, ["lsinitrd", "--mod", f"{SHARE}/{image.path.name}"], share=bench.work)
    modules = set(listing.split())
    assert {"initqueue", "cryptpilot"} <= modules
    assert modules & {*STACKS, *SYSTEMD} == (SYSTEMD if systemd else set())
    plain = Disk(make_ext4(bench.work / "plain.img", release.system, 512 << 20), "plain")
    scratch = Disk(blank_disk(bench.work / "scratch.img", 64 << 20), "scratch")
    report = machines.report_disk(bench.work / "report.img")
    machine = machines.machine(tree, image, (plain, scratch, report), None)
    words = f"{qemu.CONSOLE} root={plain.device} rw rd.cryptpilot.timeout=120 cryptpilot.timeout=5"
    qemu.boot(replace(machine, cmdline=words), timeout=400, log=bench.work / "console.log").check()
    events = machines.events(machines.read_report(report))
    outcomes = {event["volume"]: event["stage"] for event in events if event["step"] == "outcome"}
    assert outcomes["scratch"] == "initrd"

"""The initrds that distributions offer: releases, network stacks, with systemd and without, and what the root lies on.

A row is a boot; docs/boot.md has them as a table. Each release has a file of its own, `test_debian*.py`: what is in one
file shares a root disk, and two files are run at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests import machines
from tests.boot import shutdown
from tests.lab import qemu
from tests.lab.disk import Disk, luks_uuid
from tests.lab.image import make_archive, make_ext4, prune
from tests.lab.run import run
from tests.lab.tree import SHARE, TESTING, in_chroot, root_tree
from tests.packages import rpmroot
from tests.packages.managers import rpm_tree

if TYPE_CHECKING:
    from tests.lab.net import Namespace

PACKAGES = ("network-manager", "lvm2")
"""What a tree has beside the usual ones, so that its dracut can make every kind of image."""
LEGACY = "isc-dhcp-client"
"""What dracut's legacy scripts take beside these; Debian testing has it no more, nor dracut 110 the scripts."""
SWITCH_ROOT = "util-linux-extra"
"""What an image without systemd takes beside these in Debian testing, where it is a package of its own."""

STACKS = frozenset({"systemd-networkd", "network-manager", "network-legacy"})
SYSTEMD = frozenset({"systemd", "systemd-initrd", "dracut-systemd"})
WORDS = {
    # Or else it loads a BPF program, and that kernel first looks through all its types: half a minute of emulation.
    "bullseye": "systemd.unified_cgroup_hierarchy=0",
}
"""What a release has on its kernel's command line."""
# The machine that makes the image is not the one it is for.
DRIVERS = "virtio_pci virtio_blk virtio_net virtio_rng ext4"
INTEGRITY = {"bullseye"}
"""Releases whose root volume has integrity: one with a cryptsetup that takes the header and the data together only."""
PATIENCE = 120
"""Seconds the agent has: nothing here is to fail for want of time."""
SLACK = 30
"""Seconds that an emulated machine may take from the end of a wait to the pivot; NetworkManager's waits are of 90."""


@dataclass(frozen=True)
class Row:
    """A kind of image."""

    network: str
    systemd: bool = True
    hostonly: bool = False

    def __str__(self) -> str:
        words = [self.network, "" if self.systemd else "no-systemd", "hostonly" if self.hostonly else ""]
        return "-".join(word for word in words if word)

    @property
    def options(self) -> list[str]:
        """What dracut is told."""
        return [
            *("--add", self.network),
            *([] if self.systemd else ["--omit", " ".join(sorted(SYSTEMD))]),
            *(["--hostonly", "--add-drivers", DRIVERS, "--filesystems", "ext4"] if self.hostonly else []),
        ]


class Release:
    """A Debian release: a tree that makes images of every kind, and a root disk with a smaller system on it.

    One of them is a machine of RPMs, on which dnf has installed the package; the others have what `build.py install`
    lays out.
    """

    def __init__(self, site: machines.Site, work: Path, name: str) -> None:
        self._work = work
        self._images: dict[Row, machines.Image] = {}
        volumes = {machines.ROOT: machines.volume_file(site)}
        packages = (*PACKAGES, SWITCH_ROOT if name == TESTING else LEGACY)
        if name == rpmroot.SUITE:
            self.tree = machines.compress_little(rpm_tree(work / "tree", packages))
            self.system = machines.equip(prune(rpm_tree(work / "whole"), work / "system"))
        else:
            self.tree = machines.installed_tree(work / "tree", packages, name)
            self.system = machines.install(prune(root_tree(name), work / "system"))
        machines.configure(self.tree, volumes, machines.settings(timeout=PATIENCE))
        machines.configure(self.system, volumes)
        in_chroot(self.system, ["systemctl", "enable", "cryptpilot.service"])
        make_archive(work / "root.tar", self.system)
        self.disk = machines.make_root_disk(site, self.tree, work)
        self.words = WORDS.get(name, "")

    def image(self, row: Row) -> machines.Image:
        """Return the release's image of a kind, made once for all tests that boot from it; do not change the tree."""
        if row not in self._images:
            self._images[row] = make_image(self.tree, row, self._work / f"{row}.img")
        return self._images[row]


@dataclass(frozen=True)
class Bench:
    """Puts machines together and boots them."""

    site: machines.Site
    network: Namespace
    work: Path

    def image(self, tree: Path, row: Row, *options: str) -> machines.Image:
        """Make the image of a row in a tree of the test's own."""
        return make_image(tree, row, self.work / "initrd.img", *options)

    def boot(self, tree: Path, image: machines.Image, disks: list[Disk], words: str = "") -> dict[str, str]:
        """Boot from copies of the disks, with an honest KMS; see that all is closed at the end; return the report."""
        report = machines.report_disk(self.work / "report.img")
        result = self.start(tree, image, [*map(self.copy, disks), report], words).check()
        shutdown.require_closed(result)
        return machines.read_report(report)

    def start(
        self, tree: Path, image: machines.Image, disks: list[Disk], words: str = "", until: str | None = None
    ) -> qemu.BootResult:
        """Boot until the machine ends by itself, or the console shows `until`.

        words: more for the kernel's command line, where the last counts.
        """
        machine = machines.machine(tree, image, tuple(disks), self.network)
        machine = replace(machine, cmdline=f"{machine.cmdline} {words}")
        self.site.forget_requests()
        with machines.running_kms(self.site, self.network):
            return qemu.boot(machine, timeout=400, log=self.work / "console.log", until=until)

    def copy(self, disk: Disk) -> Disk:
        """Copy a disk, for a machine that may write to it."""
        path = self.work / f"own-{disk.path.name}"
        run(["cp", "--sparse=always", disk.path, path])
        return replace(disk, path=path)


def make_image(tree: Path, row: Row, path: Path, *options: str) -> machines.Image:
    """Make the image of a row, and see that it is of the kind that was meant."""
    image = machines.make_image(tree, path, *row.options, *options)
    require_kind(tree, image, row)
    return image


def require_kind(tree: Path, image: machines.Image, row: Row) -> None:
    """Fail unless an image is of the kind that a row says."""
    listing = in_chroot(tree, ["lsinitrd", "--mod", f"{SHARE}/{image.path.name}"], share=image.path.parent)
    modules = set(listing.split())
    assert "cryptpilot" in modules
    assert modules & STACKS == {row.network}
    assert modules & SYSTEMD == (SYSTEMD if row.systemd else set())


def require_boot(row: Row, release: Release, bench: Bench) -> None:
    """Boot the release's root disk with an image of a kind; fail unless all went as it should."""
    require_boot_from(release.image(row), release, bench)


def require_boot_from(image: machines.Image, release: Release, bench: Bench) -> None:
    """Boot the release's root disk with an image; fail unless all went as it should.

    What is left over on the kernel command line has dracut and systemd-cryptsetup ask for a passphrase if they can.
    """
    words = f"{release.words} rd.luks.uuid=luks-{luks_uuid(release.disk)}"
    report = bench.boot(release.tree, image, [release.disk], words)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert answers(bench.site) == [("GetSecretValue", "ok")]
    require_history(report, "root")


def require_going_on(row: Row, release: Release, bench: Bench, tree: Path | None = None) -> None:
    """Boot from an ordinary disk with a network on which nobody answers: once the agent gives up, the boot goes on.

    tree: what the image is made in, if it is not the release's own.
    """
    image = bench.image(tree, row) if tree else release.image(row)
    tree = tree or release.tree
    plain = Disk(make_ext4(bench.work / "plain.img", release.system, 512 << 20), "plain")
    report = machines.report_disk(bench.work / "report.img")
    machine = machines.machine(tree, image, (plain, bench.copy(release.disk), report), bench.network)
    deadlines = "rd.cryptpilot.late_after=10 rd.cryptpilot.timeout=120 cryptpilot.timeout=5"
    words = f"{qemu.CONSOLE} root={plain.device} rw {deadlines} {release.words}"
    machine = replace(machine, cmdline=words, silent=True)
    result = qemu.boot(machine, timeout=400, log=bench.work / "console.log").check()
    left = result.at(r"root: not open after \d+ s .*: left to cryptpilot\.service")
    gone = result.at(r"Switch(ing)? [Rr]oot|switch-root|Welcome to Debian.*!")
    assert left is not None, result
    assert gone is not None, result
    assert gone - left < SLACK, result


def require_history(report: dict[str, str], *volumes: str) -> None:
    """Fail unless the event log was carried across the pivot, and has these volumes opened before it."""
    log = [(event["stage"], event["volume"], event["step"]) for event in machines.events(report)]
    assert log[0] == ("initrd", "", "start")
    assert {("initrd", volume, "open") for volume in volumes} <= set(log)
    # where all is open already, a stage is done at once, and may see the network come up only then
    assert [step for step in log if step != ("system", "", "network-up")][-1] == ("system", "", "done")


def answers(site: machines.Site) -> list[tuple[str, str]]:
    """Return the requests the KMS was asked, and how each ended."""
    return [(request["api"], request["outcome"]) for request in site.requests()]

"""The initrds that distributions offer: releases, network stacks, with systemd and without, and what the root lies on.

A row is a boot; docs/boot.md has them as a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab import qemu
from tests.lab.bundle import frozen
from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.image import fill_script, make_archive, prune
from tests.lab.run import run
from tests.lab.tree import SHARE, clone, in_chroot, root_tree

if TYPE_CHECKING:
    from tests.lab.net import Namespace

PACKAGES = ("network-manager", "lvm2", "isc-dhcp-client")
"""What a tree has beside the usual ones, so that its dracut can make every kind of image."""

STACKS = frozenset({"systemd-networkd", "network-manager", "network-legacy"})
SYSTEMD = frozenset({"systemd", "systemd-initrd", "dracut-systemd"})
WORDS = {
    # Or else it loads a BPF program, and that kernel first looks through all its types: half a minute of emulation.
    "bullseye": "systemd.unified_cgroup_hierarchy=0",
}
"""What a release has on its kernel's command line."""
# The machine that makes the image is not the one it is for.
DRIVERS = "virtio_pci virtio_blk virtio_net virtio_rng ext4"
PATIENCE = 120
"""Seconds the agent has: nothing here is to fail for want of time."""


@dataclass(frozen=True)
class Row:
    """A kind of image, and what the root lies on."""

    release: str
    network: str
    systemd: bool = True
    hostonly: bool = False

    def __str__(self) -> str:
        words = [self.release, self.network, "" if self.systemd else "no-systemd", "hostonly" if self.hostonly else ""]
        return "-".join(word for word in words if word)

    @property
    def options(self) -> list[str]:
        """What dracut is told."""
        return [
            *("--add", self.network),
            *([] if self.systemd else ["--omit", " ".join(sorted(SYSTEMD))]),
            *(["--hostonly", "--add-drivers", DRIVERS, "--filesystems", "ext4"] if self.hostonly else []),
        ]


ROWS = [
    Row("bullseye", "network-legacy"),
    Row("bullseye", "network-legacy", systemd=False),
    Row("bullseye", "network-manager", systemd=False),
    Row("bookworm", "network-manager", hostonly=True),
    Row("bookworm", "network-legacy", systemd=False),
    Row("bookworm", "systemd-networkd"),
    Row("trixie", "systemd-networkd"),
    Row("trixie", "network-manager", hostonly=True),
    Row("trixie", "network-legacy", systemd=False),
]


class Release:
    """A Debian release: a tree that makes images of every kind, and a root disk with a smaller system on it."""

    def __init__(self, site: machines.Site, work: Path, name: str) -> None:
        volumes = {machines.ROOT: machines.volume_file(site)}
        self.tree = machines.installed_tree(work / "tree", PACKAGES, name)
        machines.configure(self.tree, volumes, machines.settings(timeout=PATIENCE))
        self.system = machines.install(prune(root_tree(name), work / "system"), frozen(name))
        machines.configure(self.system, volumes)
        in_chroot(self.system, ["systemctl", "enable", "cryptpilot.service"])
        make_archive(work / "root.tar", self.system)
        self.disk = machines.make_root_disk(site, self.tree, work)
        self.words = WORDS.get(name, "")


class Releases:
    """Each release is made when it is first asked for."""

    def __init__(self, site: machines.Site, work: Path) -> None:
        self._site = site
        self._work = work
        self._made: dict[str, Release] = {}

    def __getitem__(self, name: str) -> Release:
        if name not in self._made:
            work = self._work / name
            work.mkdir()
            self._site.behave("ok")
            self._made[name] = Release(self._site, work, name)
        return self._made[name]


@pytest.fixture(scope="session")
def releases(lab: None, site: machines.Site, tmp_path_factory: pytest.TempPathFactory) -> Releases:  # noqa: ARG001
    return Releases(site, tmp_path_factory.mktemp("releases"))


@dataclass(frozen=True)
class Bench:
    """Puts machines together and boots them."""

    site: machines.Site
    network: Namespace
    work: Path

    def image(self, tree: Path, row: Row, *options: str) -> machines.Image:
        """Make the image of a row, and see that it is of the kind that was meant."""
        image = machines.make_image(tree, self.work / "initrd.img", *row.options, *options)
        listing = in_chroot(tree, ["lsinitrd", "--mod", f"{SHARE}/{image.path.name}"], share=self.work)
        modules = set(listing.split())
        assert "cryptpilot" in modules
        assert modules & STACKS == {row.network}
        assert modules & SYSTEMD == (SYSTEMD if row.systemd else set())
        return image

    def boot(self, tree: Path, image: machines.Image, disks: list[Disk], words: str = "") -> dict[str, str]:
        """Boot from copies of the disks, with an honest KMS; return the report."""
        report = machines.report_disk(self.work / "report.img")
        self.start(tree, image, [*map(self.copy, disks), report], words).check()
        return machines.read_report(report)

    def start(self, tree: Path, image: machines.Image, disks: list[Disk], words: str = "") -> qemu.BootResult:
        """Boot until the machine ends by itself. words: more for the kernel's command line, where the last counts."""
        machine = machines.machine(tree, image, tuple(disks), self.network)
        # Two machines with a processor each take half the time of two with two, one after the other.
        machine = replace(machine, cmdline=f"{machine.cmdline} {words}", smp=1)
        self.site.forget_requests()
        with machines.running_kms(self.site, self.network):
            return qemu.boot(machine, timeout=400, log=self.work / "console.log")

    def copy(self, disk: Disk) -> Disk:
        """Copy a disk, for a machine that may write to it."""
        path = self.work / f"own-{disk.path.name}"
        run(["cp", "--sparse=always", disk.path, path])
        return replace(disk, path=path)


@pytest.fixture
def bench(site: machines.Site, network: Namespace, tmp_path: Path) -> Bench:
    site.behave("ok")
    return Bench(site, network, tmp_path)


def require_history(report: dict[str, str], *volumes: str) -> None:
    """Fail unless the event log was carried across the pivot, and has these volumes opened before it."""
    log = [(event["stage"], event["volume"], event["step"]) for event in machines.events(report)]
    assert log[0] == ("initrd", "", "start")
    assert {("initrd", volume, "open") for volume in volumes} <= set(log)
    assert log[-1] == ("system", "", "done")


def answers(site: machines.Site) -> list[tuple[str, str]]:
    """Return the requests the KMS was asked, and how each ended."""
    return [(request["api"], request["outcome"]) for request in site.requests()]


def by_release(row: Row) -> object:
    """Keep what shares a root disk in one process."""
    return pytest.param(row, marks=pytest.mark.xdist_group(row.release), id=str(row))


@pytest.mark.parametrize("row", map(by_release, ROWS))
def test_a_machine_boots_from_every_kind_of_initrd(row: Row, releases: Releases, bench: Bench) -> None:
    release = releases[row.release]
    report = bench.boot(release.tree, bench.image(release.tree, row), [release.disk], release.words)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert answers(bench.site) == [("GetSecretValue", "ok")]
    require_history(report, "root")


@pytest.mark.xdist_group("bookworm")
def test_without_systemd_a_boot_that_cannot_go_on_says_so_and_stops_at_once(releases: Releases, bench: Bench) -> None:
    release = releases["bookworm"]
    image = bench.image(release.tree, WITHOUT_SYSTEMD)
    before = sha256(release.disk.path)
    bench.site.behave("refuse")
    result = bench.start(release.tree, image, [release.disk])
    console = result.console
    assert result.ending in (qemu.Ending.POWERED_OFF, qemu.Ending.PANICKED, qemu.Ending.REBOOTED), str(result)
    for said in (
        r"cryptpilot\[\d+\]: volume \"root\" could not be opened",
        r"cryptpilot\[\d+\]:   failed:   KMS says Forbidden.NoPermission",
        r"cryptpilot\[\d+\]:   now:      the kernel command line names this volume, so the boot stops here",
        r"\] dracut Warning: cryptpilot: a volume that this boot cannot do without is not open",
    ):
        assert len(re.findall(said, console)) == 1, f"{said}\n{result}"
    assert answers(bench.site) == [("GetSecretValue", "refuse")]
    assert sha256(release.disk.path) == before


@pytest.mark.xdist_group("bookworm")
def test_root_on_lvm_within_the_volume(releases: Releases, bench: Bench) -> None:
    release = releases["bookworm"]
    tree = clone(release.tree, bench.work / "tree")
    file = machines.volume_file(bench.site).replace('makefs = "ext4"\n', "")
    machines.configure(tree, {machines.ROOT: file})
    disk = Disk(blank_disk(bench.work / "root.img", machines.ROOT_DISK_BYTES), machines.ROOT)
    system = clone(release.system, bench.work / "system")
    machines.configure(system, {machines.ROOT: file})
    archive = Disk(make_archive(bench.work / "root.tar", system), "archive", readonly=True)
    script = f"""
export LVM_SUPPRESS_FD_WARNINGS=1
# nobody is there to make the nodes
config='activation {{ udev_sync=0 udev_rules=0 }} devices {{ obtain_device_list_from_udev=0 }}'
lvm() {{ command lvm "$1" --config "$config" "${{@:2}}"; }}
cryptpilot init root --yes
cryptpilot open root
lvm pvcreate /dev/mapper/root
lvm vgcreate vg0 /dev/mapper/root
lvm lvcreate --yes --name root --extents 100%FREE vg0
mkfs.ext4 -q /dev/mapper/vg0-root
{fill_script(archive.device, "/dev/mapper/vg0-root")}
lvm vgchange --activate n vg0
cryptpilot close root
"""
    machines.run_with_kms(bench.site, tree, script, disks=[disk, archive], timeout=240).check()
    row = Row("bookworm", "network-manager", hostonly=True)
    image = bench.image(tree, row, "--add", "lvm")
    report = bench.boot(tree, image, [disk], "root=/dev/mapper/vg0-root")
    assert report["root_source"].strip() == "/dev/mapper/vg0-root"
    assert answers(bench.site) == [("GetSecretValue", "ok")]
    require_history(report, "root")


@pytest.mark.xdist_group("bookworm")
def test_usr_and_var_on_volumes_of_their_own_swap_and_integrity(releases: Releases, bench: Bench) -> None:
    release = releases["bookworm"]
    tree = clone(release.tree, bench.work / "tree")
    sizes = {"root": 128 << 20, "usr": machines.ROOT_DISK_BYTES, "var": 128 << 20, "data": 128 << 20, "swap": 64 << 20}
    disks = [Disk(blank_disk(bench.work / f"{name}.img", size), name) for name, size in sizes.items()]
    files = {disk.name: machines.volume_file(bench.site, volume=disk.name, dev=disk.device) for disk in disks}
    files["data"] = files["data"].replace("auto_open = true\n", "auto_open = true\nintegrity = true\n")
    files["swap"] = SWAP
    system = clone(release.system, bench.work / "system")
    for one in (tree, system):
        machines.configure(one, files)
        (one / "etc/fstab").write_text(FSTAB)
    archive = Disk(make_archive(bench.work / "root.tar", system), "archive", readonly=True)
    script = f"""
cryptpilot init root usr var data --yes
cryptpilot open root usr var
mount /dev/mapper/root /mnt
mkdir /mnt/usr /mnt/var
mount /dev/mapper/usr /mnt/usr
mount /dev/mapper/var /mnt/var
tar -C /mnt --numeric-owner --xattrs --xattrs-include='*' -xf {archive.device}
umount /mnt/usr /mnt/var /mnt
cryptpilot close root usr var
"""
    machines.run_with_kms(bench.site, tree, script, disks=[*disks, archive], timeout=240).check()
    image = bench.image(tree, Row("bookworm", "systemd-networkd"))
    report = bench.boot(tree, image, disks)
    mounts = {fields[1]: fields[0] for fields in map(str.split, report["mounts"].splitlines())}
    wanted = {"/": "root", "/usr": "usr", "/var": "var", "/srv": "data"}
    assert {place: mounts[place] for place in wanted} == {p: f"/dev/mapper/{name}" for p, name in wanted.items()}
    assert re.search(r"^/dev/dm-\d+\s+partition", report["swaps"], re.MULTILINE)
    assert not re.search(r"cryptpilot|mapper|srv|swap", report["failed"])
    assert answers(bench.site) == [("GetSecretValue", "ok")] * 4
    require_history(report, *sizes)


WITHOUT_SYSTEMD = Row("bookworm", "network-legacy", systemd=False)

SWAP = """\
volume = "swap"
dev = "/dev/disk/by-id/virtio-swap"
auto_open = true
makefs = "swap"
[encrypt.otp]
"""

FSTAB = """\
/dev/mapper/root / ext4 defaults 0 0
/dev/mapper/usr /usr ext4 defaults 0 0
/dev/mapper/var /var ext4 defaults 0 0
/dev/mapper/data /srv ext4 defaults 0 0
/dev/mapper/swap none swap sw 0 0
"""

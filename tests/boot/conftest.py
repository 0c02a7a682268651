"""The machines of the boot tests: one tree, one root disk, and an image for each way of talking."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Callable

import pytest

from tests import machines
from tests.boot import stock
from tests.boot.conversion import Workshop
from tests.boot.matrix import Bench, Release
from tests.lab import qemu, selinux
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_archive, prune
from tests.lab.run import run
from tests.lab.tree import clone, in_chroot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.net import Namespace


PATIENCE = 240
"""Seconds the agent has in these machines; most of it is the emulation's, not the agent's."""
DEADLINE = 45
"""Seconds it has where it is the deadline that is under test."""


@pytest.fixture(scope="session")
def boot_tree(tree: Path, site: machines.Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree whose initrd opens the root volume; beside it a volume that is none of the initrd's business."""
    copy = clone(tree, tmp_path_factory.mktemp("boot") / "tree")
    shutil.copytree(SPY, copy / "usr/lib/dracut/modules.d/96lab-spy")
    later = machines.volume_file(site, volume="later", dev="/dev/disk/by-id/virtio-later")
    volumes = {"root": machines.volume_file(site), "later": later.replace("auto_open = true", "auto_open = false")}
    machines.configure(copy, volumes, machines.settings(timeout=PATIENCE))
    return copy


@pytest.fixture(scope="session")
def root_disk(boot_tree: Path, site: machines.Site, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """A disk with a system in a LUKS2 volume made by `cryptpilot init`; copied for each boot.

    The booted system knows of a temporary volume that the image does not: the late helper's. It has SELinux, for
    kernels that are given `selinux.WORDS`.
    """
    work = tmp_path_factory.mktemp("disk")
    copy = machines.installed_tree(work / "tree", selinux.PACKAGES)
    for path in ("usr/lib/modules", "etc/cryptpilot"):  # two trees may have two kernels
        shutil.rmtree(copy / path)
        clone(boot_tree / path, copy / path)
    machines.configure(copy, {"scratch": machines.scratch_file()})
    in_chroot(copy, ["systemctl", "enable", "cryptpilot.service"])
    system = prune(copy, work / "pruned")
    clone(copy / "usr/lib/dracut", system / "usr/lib/dracut")
    selinux.label(system)
    make_archive(work / "root.tar", system)
    enroll = f"""
cryptpilot recovery-key {machines.ROOT} > {machines.KMS_FILES}/{RECOVERY_KEY}
cp -r /etc/cryptpilot/{IDENTITIES} {machines.KMS_FILES}
"""
    return machines.make_root_disk(site, copy, work, enroll)


@pytest.fixture
def recovery_key(root_disk: Disk, site: machines.Site) -> str:  # noqa: ARG001 - it is the disk's
    """The recovery key of the root disk, as it was printed."""
    return (site.directory / RECOVERY_KEY).read_text().strip()


@pytest.fixture(scope="session")
def image(boot_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> machines.Image:
    """The initrd as configured."""
    return machines.make_image(boot_tree, tmp_path_factory.mktemp("image") / "initrd.img")


@pytest.fixture(scope="session")
def verbose_image(
    boot_tree: Path,
    root_disk: Disk,  # noqa: ARG001 - it is what the root volume is bound to
    site: machines.Site,
    tmp_path_factory: pytest.TempPathFactory,
) -> machines.Image:
    """The initrd with `verbose = true`, bound to the root disk, and with somebody in it who watches the processes.

    It is that of an attended machine: with `ask = true`.
    """
    work = tmp_path_factory.mktemp("verbose")
    copy = clone(boot_tree, work / "tree")
    shutil.copytree(site.directory / IDENTITIES, copy / "etc/cryptpilot" / IDENTITIES)
    machines.configure(copy, {}, machines.settings(verbose=True, timeout=PATIENCE, ask=True))
    return machines.make_image(copy, work / "initrd.img", "--add", "lab-spy")


@pytest.fixture
def kms(site: machines.Site, network: Namespace) -> Iterator[machines.Site]:
    """The KMS, at work and honest until told otherwise; its record is empty."""
    site.behave("ok")
    site.forget_requests()
    with machines.running_kms(site, network):
        yield site


Boot = Callable[..., qemu.BootResult]


@pytest.fixture
def boot(boot_tree: Path, network: Namespace, tmp_path: Path) -> Boot:
    """Boots a machine from an image and disks, with more kernel parameters, until it turns itself off.

    stops: the boot fails, and all is on the console when it says so, a minute before the machine turns itself off.
    timeout: seconds it may take.
    """

    def boot(
        image: machines.Image, disks: tuple[Disk, ...], words: str = "", *, stops: bool = False, timeout: int = 400
    ) -> qemu.BootResult:
        machine = machines.machine(boot_tree, image, disks, network)
        machine = replace(machine, cmdline=f"{machine.cmdline} {words}")
        until, ending = (machines.NO_SHELL, qemu.Ending.SEEN) if stops else (None, qemu.Ending.POWERED_OFF)
        return qemu.boot(machine, timeout=timeout, log=tmp_path / "console.log", until=until).check(ending)

    return boot


@pytest.fixture
def own_root_disk(root_disk: Disk, tmp_path: Path) -> Disk:
    """A copy of the root disk that a test may do with what it likes."""
    copy = tmp_path / "root.img"
    run(["cp", "--sparse=always", root_disk.path, copy])
    return replace(root_disk, path=copy)


@pytest.fixture
def scratch_disk(tmp_path: Path) -> Disk:
    return Disk(blank_disk(tmp_path / "scratch.img", 64 << 20), "scratch")


@pytest.fixture
def report_disk(tmp_path: Path) -> Disk:
    return machines.report_disk(tmp_path / "report.img")


@pytest.fixture
def encrypted(
    boot_tree: Path,
    image: machines.Image,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    network: Namespace,
) -> qemu.Machine:
    """A machine whose root is a volume."""
    return machines.machine(boot_tree, image, (own_root_disk, scratch_disk, report_disk), network)


@pytest.fixture(scope="module")
def release(
    lab: None,  # noqa: ARG001
    request: pytest.FixtureRequest,
    site: machines.Site,
    tmp_path_factory: pytest.TempPathFactory,
) -> Release:
    """The release that a test's file names."""
    site.behave("ok")
    name = request.module.RELEASE
    return Release(site, tmp_path_factory.mktemp(name), name)


@pytest.fixture(scope="session")
def converter(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A machine that converts images."""
    return machines.install(clone(stock.root(), tmp_path_factory.mktemp("converter") / "tree"))


@pytest.fixture
def workshop(site: machines.Site, converter: Path, tmp_path: Path) -> Workshop:
    share = tmp_path / "images"
    share.mkdir()
    return Workshop(site, converter, share)


@pytest.fixture
def bench(site: machines.Site, network: Namespace, tmp_path: Path) -> Bench:
    site.behave("ok")
    return Bench(site, network, tmp_path)


RECOVERY_KEY = "recovery-key"
IDENTITIES = "identities"
SPY = machines.CHECKOUT / "tests/boot/96lab-spy"

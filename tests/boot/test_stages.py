"""Which volume is opened when: boots without a network, with a late one, with volumes that the pivot does not need."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.system import luks_header
from cryptpilot_boot.volume import identity
from tests import machines
from tests.boot.conftest import PATIENCE
from tests.boot.emergency import enter_shell
from tests.boot.evidence import require_no_secret
from tests.boot.prompt import NO_KEY, PROMPT, answer
from tests.boot.shutdown import require_closed
from tests.headers import Template
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_archive, make_ext4, prune
from tests.lab.run import LabError, run
from tests.lab.tree import SHARE, clone, in_chroot, kernel, kernel_release
from tests.unit.test_config import configure

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import Boot
    from tests.lab.net import Namespace

MIB = 1 << 20

OTP_FILES = {
    "scratch": ("ext4", False),
    "sealed": ("ext4", True),
    "swap0": ("swap", False),
}
"""Temporary volumes of an image: file system, integrity."""


def otp_file(name: str) -> str:
    makefs, integrity = OTP_FILES[name]
    return f"""\
volume = "{name}"
dev = "/dev/disk/by-id/virtio-{name}"
auto_open = true
makefs = "{makefs}"
integrity = {str(integrity).lower()}
[encrypt.otp]
"""


@dataclass(frozen=True)
class Plain:
    """A machine whose root is an ordinary disk: what it is made of."""

    tree: Path
    disk: Disk

    def machine(self, image: machines.Image, *disks: Disk, network: Namespace | None = None) -> qemu.Machine:
        return qemu.Machine(
            kernel=kernel(self.tree),
            initrd=image.path,
            cmdline=f"{qemu.CONSOLE} root={self.disk.device} rw",
            disks=(self.disk, *disks),
            netns=network,
        )


def plain_system(tree: Path, work: Path, fstab: str = "") -> Plain:
    """Make an ordinary root disk of a configured tree; the service is enabled."""
    root = prune(tree, work / "plain")
    for line in fstab.splitlines():
        (root / line.split()[1].lstrip("/")).mkdir(exist_ok=True)
    (root / "etc/fstab").write_text(fstab)
    in_chroot(root, ["systemctl", "enable", "cryptpilot.service"])
    return Plain(tree, Disk(make_ext4(work / "plain.img", root, 512 * MIB), "plain"))


def opened_by(report: dict[str, str]) -> dict[str, str]:
    """Return which stage opened each volume."""
    outcomes = [event for event in machines.events(report) if event["step"] == "outcome"]
    return {event["volume"]: event["stage"] for event in outcomes if event["facts"]["result"] == "opened"}


def swapped_disk(tree: Path, files: dict[str, str], work: Path) -> tuple[Disk, str]:
    """Add a volume, bound to a disk; return another volume's disk to attach in its place, and what is said of it then.

    files: what is to be configured; what the volume is bound to is written into the tree.
    """
    own, other = (Template.made(work / f"{name}.img", machines.EXEC_KEY) for name in ("own", "other"))
    disk = Disk(other.image, "data1")
    files["data1"] = "auto_open = true\n" + machines.exec_file("data1", disk.device)
    facts = [header_facts(template.image) for template in (own, other)]
    (data1,) = configure(work / "data1", files["data1"]).volumes
    bound = identity.of(facts[0], tree / "etc/cryptpilot/identities/data1.toml")
    identity.write(data1, bound)
    found = identity.of(facts[1], bound.source)
    return disk, f"initialized or bound as data1: its UUID is {found.uuid}, and {bound.uuid} is expected"


def header_facts(image: Path) -> luks_header.Facts:
    header, facts = luks_header.copy_from(str(image))
    header.close()
    return facts


def rebuilt_image(tree: Path, volumes: dict[str, str]) -> machines.Image:
    """Give a tree's image more volumes, as an administrator would: configure, be told that it is stale, rebuild."""
    release = kernel_release(tree)
    image = tree / f"boot/initrd.img-{release}"
    in_chroot(tree, ["dracut", "--no-hostonly", image.relative_to(tree).as_posix(), release])
    machines.configure(tree, volumes)
    with pytest.raises(LabError, match=r"scratch\.toml|stale"):
        in_chroot(tree, ["cryptpilot", "initrd", "status"])
    said = in_chroot(tree, ["cryptpilot", "initrd", "rebuild", "--kernel", release, "--", "--no-hostonly"])
    in_chroot(tree, ["cryptpilot", "initrd", "check", "--kernel", release])
    return machines.Image(image, said)


def test_temporary_volumes_bring_no_network_up(
    tree: Path, network: Namespace, report_disk: Disk, tmp_path: Path
) -> None:
    """Complaints: boot fails or hangs where there is no network, though no volume needs it; a rebuild loses the set-up.

    There is a network here, and nobody touches it; Debian's dracut-network puts its modules into the image all the
    same.
    """
    copy = clone(tree, tmp_path / "tree")
    (copy / "etc/cryptpilot/volumes/root.toml").unlink()
    files = {name: otp_file(name) for name in OTP_FILES}
    machines.configure(copy, {"swap0": files.pop("swap0")}, machines.settings(timeout=PATIENCE))
    swapped, said = swapped_disk(copy, files, tmp_path)
    image = rebuilt_image(copy, files)
    asked = in_chroot(copy, ["lsinitrd", "-f", "etc/cmdline.d/95cryptpilot.conf", f"boot/{image.path.name}"])
    assert asked.strip() == ""
    fstab = "/dev/mapper/scratch /mnt ext4 defaults 0 0\n/dev/mapper/sealed /media ext4 defaults 0 0\n"
    plain = plain_system(copy, tmp_path, fstab + "/dev/mapper/swap0 none swap defaults 0 0\n")
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", 64 * MIB), name) for name in OTP_FILES]
    machine = plain.machine(image, *disks, swapped, report_disk, network=network)
    console = qemu.boot(machine, timeout=400, log=tmp_path / "console.log").check().console
    report = machines.read_report(report_disk)
    assert opened_by(report) == dict.fromkeys(OTP_FILES, "initrd")
    # by neither stage, and before the key was asked for
    assert console.count(said) >= 2, console
    assert ("data1", "fetch-key") not in {(event["volume"], event["step"]) for event in machines.events(report)}
    assert re.search(r"^e\S+ +DOWN *$", report["addresses"], re.MULTILINE), report["addresses"]
    assert "network-up" not in {event["step"] for event in machines.events(report)}
    mounted = dict(line.split()[:2] for line in report["mounts"].splitlines())
    assert (mounted["/dev/mapper/scratch"], mounted["/dev/mapper/sealed"]) == ("/mnt", "/media")
    assert "dm-" in report["swaps"]
    assert "Not all DM devices detached" not in console


def test_a_volume_that_the_pivot_does_not_need_does_not_keep_it(
    boot_tree: Path, image: machines.Image, own_root_disk: Disk, report_disk: Disk, tmp_path: Path
) -> None:
    """Complaint: it tries once, or it retries forever. Without any network the boot goes on, and says so."""
    plain = plain_system(boot_tree, tmp_path)
    machine = plain.machine(image, own_root_disk, report_disk)
    # a busy machine may take longer than 20 s to see its disks, and that is not what is asked here
    words = "rd.cryptpilot.late_after=12 rd.cryptpilot.timeout=120 cryptpilot.timeout=20"
    machine = replace(machine, cmdline=f"{machine.cmdline} {words}")
    console = qemu.boot(machine, timeout=400, log=tmp_path / "console.log").check().console
    assert "root: waiting: the network: there is no route yet" in console
    assert re.search(r"root: not open after \d+ s .*: left to cryptpilot\.service", console)
    assert "now:      try again: systemctl restart cryptpilot@root.service" in console
    report = machines.read_report(report_disk)
    outcomes = [event for event in machines.events(report) if event["step"] == "outcome"]
    assert [(event["stage"], event["facts"]["result"]) for event in outcomes] == [
        ("initrd", "left to the system stage"),
        ("system", "failed"),
    ]
    assert set(report["failed"].split()) & {"cryptpilot@root.service", "cryptpilot-initrd.service"} == {
        "cryptpilot@root.service"
    }


def test_a_network_that_comes_late_is_used_when_it_comes(
    encrypted: qemu.Machine, verbose_image: machines.Image, report_disk: Disk, kms: machines.Site, tmp_path: Path
) -> None:
    """Complaint: it tries once, before DHCP is done. And what was in the initrd is in no memory of the system.

    A person is asked meanwhile, does not know, and need not.
    """
    words = f"{encrypted.cmdline} rd.cryptpilot.timeout=150"
    machine = replace(encrypted, initrd=verbose_image.path, cmdline=words, link_up_after=3600)
    with qemu.Guest(machine, tmp_path / "console.log") as guest:
        answer(guest, NO_KEY)
        guest.result(guest.wait(400, until=rf"wrong key: .*{PROMPT}:")).check(qemu.Ending.SEEN)
        guest.set_link(up=True)
        result = guest.result(guest.wait(400)).check()
    assert NO_KEY not in result.console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert "root: waiting: the network: there is no route yet" in result.console
    assert re.search(r"root: fetch-key: \d+\.\d{3} s", result.console), "it was not verbose"
    assert [request["api"] for request in kms.requests()] == ["GetSecretValue"]
    prompts = [event for event in machines.events(report) if event["step"] == "prompt" and event["phase"] == "end"]
    assert [event["facts"]["result"] for event in prompts] == ["typed", "dismissed"]
    (opened,) = [
        event for event in machines.events(report) if event["step"] == "outcome" and event["volume"] == "root"
    ][:1]
    assert "typed" not in opened["facts"]
    waited = [event for event in machines.events(report) if event["phase"] == "wait" and event["step"] == "fetch-key"]
    assert waited[0]["facts"]["waiting_for"] == "the network: there is no route yet"
    assert "/run" in report["memory-backed"].split()
    assert "run/cryptpilot/events.jsonl" in report["memory"]
    require_no_secret(kms, {**report, "console": result.console})


@pytest.fixture(scope="module")
def attended_image(boot_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> machines.Image:
    """The initrd with `emergency_shell = true`."""
    work = tmp_path_factory.mktemp("attended")
    copy = clone(boot_tree, work / "tree")
    machines.configure(copy, {}, machines.settings(timeout=PATIENCE, emergency_shell=True))
    return machines.make_image(copy, work / "attended.img")


def test_a_root_that_needs_the_network_stops_the_boot_without_one_at_the_deadline(
    boot_tree: Path, attended_image: machines.Image, own_root_disk: Disk, tmp_path: Path
) -> None:
    """And the machine turns itself off, though its units for fsck are those of systemd 240."""
    image = with_old_fsck(attended_image.path, tmp_path)
    machine = machines.machine(boot_tree, replace(attended_image, path=image), (own_root_disk,), None)
    words = "rd.cryptpilot.timeout=30 rd.shell=0 rd.emergency=poweroff"
    machine = replace(machine, cmdline=f"{machine.cmdline} {words}", memory_mb=1024)
    result = qemu.boot(machine, timeout=200, log=tmp_path / "console.log").check()
    console = result.console
    (seconds,) = set(re.findall(r"failed:   .*\(\d+ tries in (\d+) s\)", console))
    assert 30 <= int(seconds) < 60  # the last try may last longer than there is time
    assert "the boot needs this volume and stops here" in console


def with_old_fsck(image: Path, work: Path) -> Path:
    """Return an image whose units for fsck wait for their device while the machine shuts down.

    They are in an archive of their own behind the image's, which the kernel unpacks over it, and take the place of what
    systemd's generator makes.
    """
    check = "[Unit]\nDefaultDependencies=no\nBindsTo={0}.device\nAfter={0}.device\nBefore=shutdown.target\n"
    check += "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    units = work / "old/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "systemd-fsck-root.service").write_text(check.format("dev-mapper-root"))
    (units / "systemd-fsck@.service").write_text(check.format("%i"))
    run(["sh", "-c", f"cd {work}/old && find . | cpio --quiet -o -H newc > ../old.cpio"])
    joined = work / "old.img"
    joined.write_bytes(image.read_bytes() + b"\0" * (-image.stat().st_size % 4) + (work / "old.cpio").read_bytes())
    return joined


def test_in_the_emergency_shell_one_sees_why_and_tries_again_without_a_reboot(
    encrypted: qemu.Machine,
    attended_image: machines.Image,
    report_disk: Disk,
    kms: machines.Site,
    recovery_key: str,
    tmp_path: Path,
) -> None:
    """By the recovery key: KMS goes on refusing."""
    kms.behave("refuse")
    machine = replace(encrypted, initrd=attended_image.path)
    with qemu.Guest(machine, tmp_path / "console.log") as guest:
        enter_shell(guest)
        guest.type("cryptpilot boot report")
        guest.result(guest.wait(200, until="Forbidden.NoPermission")).check(qemu.Ending.SEEN)
        guest.type("cryptpilot open root")
        guest.result(guest.wait(200, until="error: root: .*is not permitted")).check(qemu.Ending.SEEN)
        guest.type("cryptpilot open root --recovery-key; exit")
        guest.result(guest.wait(200, until="not shown as you type")).check(qemu.Ending.SEEN)
        guest.type(recovery_key.replace("-", " ").upper())
        ending = guest.wait(400)
    result = guest.result(ending).check()
    assert "is not permitted (KMS says Forbidden.NoPermission" in result.console
    assert "or:       cryptpilot open root --recovery-key; exit (if it has one)" in result.console
    assert "root: /dev/mapper/root is open" in result.console
    assert recovery_key.replace("-", " ").upper() not in result.console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    (root,) = [one for one in json.loads(report["show.json"]) if one["volume"] == "root"]
    assert root["opened"]


@pytest.fixture
def whole_root_disk(boot_tree: Path, site: machines.Site, tmp_path: Path) -> Disk:
    """A root disk as real ones are: with dracut, an image in /boot, and another module that calls `need_shutdown`.

    But the image is the host's, as it may be where /boot is no volume: its `shutdown` leaves a mark on the console.
    """
    site.behave("ok")
    work = tmp_path / "whole"
    work.mkdir()
    root = prune(boot_tree, work / "pruned")
    run(["cp", "-a", boot_tree / "usr/lib/dracut", root / "usr/lib"])
    run(["cp", make_host_image(root, work), root / f"boot/initrd.img-{kernel_release(boot_tree)}"])
    (root / "usr/lib/tmpfiles.d/need-shutdown.conf").write_text("f /run/initramfs/.need_shutdown\n")
    make_archive(work / "root.tar", root)
    return machines.make_root_disk(site, boot_tree, work)


def make_host_image(tree: Path, work: Path) -> Path:
    """Make an image with a shell of a tree, and a `shutdown` that says it ran and turns the machine off."""
    within = work / "image"
    for program in ["/usr/bin/dash", *re.findall(r"/\S+", in_chroot(tree, ["ldd", "/usr/bin/dash"]))]:
        (within / program[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / program[1:], within / program[1:])
    (within / "bin").mkdir()
    (within / "bin/sh").symlink_to("/usr/bin/dash")
    (within / "shutdown").write_text(f"#!/bin/sh\necho {MARK} > /dev/console\necho o > /proc/sysrq-trigger\n")
    (within / "shutdown").chmod(0o755)
    pack = f"cd {SHARE}/image && find . | cpio --quiet -o -H newc | gzip -n > ../host.img"
    in_chroot(tree, ["sh", "-c", pack], share=work)
    return work / "host.img"


def test_the_root_volume_is_closed_when_the_machine_is_turned_off_and_nothing_of_boot_runs(
    boot: Boot,
    image: machines.Image,
    whole_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    kms: machines.Site,
) -> None:
    result = boot(image, (whole_root_disk, scratch_disk, report_disk))
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert len(kms.requests()) == 1
    assert MARK not in result.console, "code of an image in /boot was run"
    require_closed(result)
    # what is in memory all the time the system runs
    files = dict(line.split(maxsplit=1)[::-1] for line in report["kept"].splitlines())
    assert {"/run/initramfs/shutdown", "/run/initramfs/bin/sh"} <= files.keys()
    assert sum(map(int, files.values())) < KEPT_BYTES


MARK = "THE-HOST-S-OWN-CODE"
KEPT_BYTES = 20 * MIB

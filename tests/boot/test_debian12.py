"""Debian 12: the initrds its dracut 059 makes, and what the root may lie on."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest

from tests import machines
from tests.boot.denial import denied
from tests.boot.emergency import enter_shell
from tests.boot.matrix import PATIENCE, Bench, Release, Row, answers, require_boot, require_going_on, require_history
from tests.boot.prompt import NO_KEY, answer
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.image import fill_script, make_archive, make_ext4, prune
from tests.lab.tree import clone, in_chroot

RELEASE = "bookworm"

ROWS = [
    Row("systemd-networkd"),
    pytest.param(Row("network-manager", hostonly=True), marks=pytest.mark.matrix),  # beside that with LVM, below
    Row("network-legacy", systemd=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_machine_boots(row: Row, release: Release, bench: Bench) -> None:
    require_boot(row, release, bench)


def test_without_systemd_a_boot_that_cannot_go_on_says_so_and_stops_at_once(release: Release, bench: Bench) -> None:
    image = release.image(WITHOUT_SYSTEMD)
    before = sha256(release.disk.path)
    bench.site.behave("refuse")
    console = bench.start(release.tree, image, [release.disk], until=machines.NO_SHELL).check(qemu.Ending.SEEN).console
    for said in (
        r"cryptpilot\[\d+\]: volume \"root\" could not be opened",
        r"cryptpilot\[\d+\]:   failed:   reading secret \S+ is not permitted \(KMS says Forbidden.NoPermission",
        r"cryptpilot\[\d+\]:   now:      the boot needs this volume and stops here",
        r"\] dracut Warning: cryptpilot: a volume that this boot cannot do without is not open",
    ):
        assert len(re.findall(said, console)) == 1, f"{said}\n{console}"
    assert answers(bench.site) == [("GetSecretValue", "Forbidden.NoPermission")]
    assert sha256(release.disk.path) == before


@pytest.mark.matrix
def test_without_systemd_a_key_is_asked_for_on_the_console(release: Release, bench: Bench) -> None:
    """KMS is down."""
    make_archive(bench.work / "root.tar", release.system)
    disk = machines.make_root_disk(bench.site, release.tree, bench.work, ATTENDED)
    tree = clone(release.tree, bench.work / "tree")
    shutil.copytree(bench.site.directory / "attended/identities", tree / "etc/cryptpilot/identities")
    machines.configure(tree, {}, machines.settings(timeout=PATIENCE, ask=True))
    image = bench.image(tree, WITHOUT_SYSTEMD)
    key = (bench.site.directory / "attended/key").read_text().strip()
    report = machines.report_disk(bench.work / "report.img")
    machine = machines.machine(tree, image, (disk, report), bench.network)
    with qemu.Guest(machine, bench.work / "console.log") as guest:
        answer(guest, NO_KEY)
        answer(guest, key, "wrong key: .*")
        result = guest.result(guest.wait(400)).check()
    assert re.search(r"root: /dev/mapper/root opened in .*, by the key that was typed", result.console), result
    assert machines.read_report(report)["root_source"].strip() == "/dev/mapper/root"
    assert key not in result.console
    assert NO_KEY not in result.console


def test_without_systemd_a_disk_that_is_withheld_gives_no_shell(release: Release, bench: Bench) -> None:
    """What the root is on cannot be opened, and it is dracut itself that gives up on its root, by its own defaults."""
    image = release.image(WITHOUT_SYSTEMD)
    machine = replace(machines.machine(release.tree, image, (), None), memory_mb=1024)
    words = f"{qemu.CONSOLE} root=/dev/mapper/vg0-root rd.retry=5 rd.cryptpilot.timeout=5"
    result = denied(replace(machine, cmdline=words), bench.work / "console.log")
    assert re.search(r'volume "root" could not be opened', result.console)
    assert re.search(r"dracut Warning: Could not boot", result.console), result


@pytest.mark.matrix
def test_without_systemd_what_the_pivot_does_not_need_does_not_keep_it(release: Release, bench: Bench) -> None:
    """Complaint: boot hangs where there is no network. The root here is an ordinary disk, and there is no network."""
    image = release.image(WITHOUT_SYSTEMD)
    plain = Disk(make_ext4(bench.work / "plain.img", release.system, 512 << 20), "plain")
    report = machines.report_disk(bench.work / "report.img")
    machine = machines.machine(release.tree, image, (plain, bench.copy(release.disk), report), None)
    deadlines = "rd.cryptpilot.late_after=15 rd.cryptpilot.timeout=120 cryptpilot.timeout=20"
    words = f"{qemu.CONSOLE} root={plain.device} rw {deadlines}"
    result = qemu.boot(replace(machine, cmdline=words), timeout=400, log=bench.work / "console.log").check()
    assert re.search(r"root: not open after \d+ s .*: left to cryptpilot\.service", result.console), result
    outcomes = [event for event in machines.events(machines.read_report(report)) if event["step"] == "outcome"]
    assert [(event["stage"], event["facts"]["result"]) for event in outcomes] == [
        ("initrd", "left to the system stage"),
        ("system", "failed"),
    ]


@pytest.mark.matrix
def test_networkmanager_without_dhcp_keeps_no_boot(release: Release, bench: Bench) -> None:
    require_going_on(Row("network-manager"), release, bench)


@pytest.mark.matrix
def test_after_a_root_opened_by_hand_networkmanager_has_a_name_server(release: Release, bench: Bench) -> None:
    """A volume of the booted system needs one. There NetworkManager takes over the device that the initrd's has set up.

    KMS refuses the secret until somebody is in the emergency shell.
    """
    tree = clone(release.tree, bench.work / "tree")
    machines.configure(tree, {}, machines.settings(timeout=PATIENCE, emergency_shell=True))
    system = prune(release.tree, bench.work / "system")
    data = Disk(blank_disk(bench.work / "data.img", 64 << 20), "data")
    file = machines.volume_file(bench.site, volume=data.name, dev=data.device)
    machines.configure(system, {data.name: f"initrd = false\n{file}"})
    in_chroot(system, ["systemctl", "enable", "cryptpilot.service", "NetworkManager.service"])
    make_archive(bench.work / "root.tar", system)
    root = machines.make_root_disk(bench.site, release.tree, bench.work)
    machines.run_with_kms(bench.site, system, "cryptpilot init data --yes", disks=[data]).check()
    image = bench.image(tree, Row("network-manager"))
    report = machines.report_disk(bench.work / "report.img")
    machine = machines.machine(tree, image, (root, data, report), bench.network)
    bench.site.behave("refuse")
    with (
        machines.running_kms(bench.site, bench.network),
        qemu.Guest(machine, bench.work / "console.log") as guest,
    ):
        enter_shell(guest)
        bench.site.behave("ok")
        guest.type("cryptpilot open root; exit")
        guest.result(guest.wait(400)).check()
    opened = {one["volume"]: one["opened"] for one in json.loads(machines.read_report(report)["show.json"])}
    assert opened == {"root": True, "data": True}


def test_root_on_lvm_within_the_volume(release: Release, bench: Bench) -> None:
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
    row = Row("network-manager", hostonly=True)
    image = bench.image(tree, row, "--add", "lvm")
    report = bench.boot(tree, image, [disk], "root=/dev/mapper/vg0-root")
    assert report["root_source"].strip() == "/dev/mapper/vg0-root"
    assert answers(bench.site) == [("GetSecretValue", "ok")]
    require_history(report, "root")


def test_usr_and_var_on_volumes_of_their_own_swap_and_integrity(release: Release, bench: Bench) -> None:
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
    image = bench.image(tree, Row("systemd-networkd"))
    report = bench.boot(tree, image, disks)
    mounts = {fields[1]: fields[0] for fields in map(str.split, report["mounts"].splitlines())}
    wanted = {"/": "root", "/usr": "usr", "/var": "var", "/srv": "data"}
    assert {place: mounts[place] for place in wanted} == {p: f"/dev/mapper/{name}" for p, name in wanted.items()}
    assert re.search(r"^/dev/dm-\d+\s+partition", report["swaps"], re.MULTILINE)
    assert not re.search(r"cryptpilot|mapper|srv|swap", report["failed"])
    assert answers(bench.site) == [("GetSecretValue", "ok")]  # which four volumes share
    require_history(report, *sizes)


ATTENDED = f"""
mkdir {machines.KMS_FILES}/attended
cryptpilot recovery-key root > {machines.KMS_FILES}/attended/key
cp -r /etc/cryptpilot/identities {machines.KMS_FILES}/attended
"""
"""What makes a root disk that of an attended machine: a recovery key, and what the image is to be bound to."""
WITHOUT_SYSTEMD = Row("network-legacy", systemd=False)

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

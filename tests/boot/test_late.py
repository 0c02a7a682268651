"""The booted system: volumes the initrd did not open, with plain lines in fstab, and nothing that waits in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import machines, steps
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk, luks_uuid
from tests.lab.image import make_ext4, prune
from tests.lab.tree import clone, in_chroot, kernel
from tests.steps import Step, prints

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

MIB = 1 << 20
TIMEOUT = 60
"""Seconds the helper has; the volume whose disk is not there takes all of them."""

FSTAB = """\
/dev/vda / ext4 defaults 0 1
/dev/mapper/data /data ext4 defaults 0 2
/dev/mapper/more /more ext4 defaults 0 2
/dev/mapper/my-local /local ext4 defaults 0 2
/dev/mapper/scratch /scratch ext4 defaults 0 0
/dev/mapper/swap0 none swap defaults 0 0
/dev/mapper/absent /absent ext4 defaults 0 2
/dev/mapper/wrong /wrong ext4 defaults 0 2
"""


CRYPTTAB = """\
# left over from before
data\tUUID={data} none\tluks
luks-{more} UUID={more} none luks,discard
"""


def otp_file(name: str, makefs: str) -> str:
    return f"""\
volume = "{name}"
dev = "/dev/disk/by-id/virtio-{name}"
makefs = "{makefs}"
[encrypt.otp]
"""


def late(text: str) -> str:
    """Have a volume opened in the booted system, and never in the initrd."""
    return "auto_open = true\ninitrd = false\n" + text.replace("auto_open = true\n", "")


def volume_files(site: machines.Site, wrong_key: str) -> dict[str, str]:
    """Return the configuration of all volumes, by name."""
    device = "/dev/disk/by-id/virtio-{}".format
    files = {
        **{
            name: machines.volume_file(site, volume=name, dev=device(name))
            for name in ("data", "more")  # which share a secret
        },
        "my-local": machines.exec_file("my-local", device("my-local"), key="/etc/lab-key"),
        "wrong": machines.exec_file("wrong", device("wrong"), key=wrong_key),
        "scratch": otp_file("scratch", "ext4"),
        "absent": otp_file("absent", "ext4"),
        "swap0": otp_file("swap0", "swap"),
    }
    return {name: late(text) for name, text in files.items()}


INITIALIZED = ("data", "more", "my-local", "wrong")
PLUG_IN = "true 'plug the absent disk in'"

STEPS = [
    Step(
        "What can be opened is open and mounted, from plain lines of fstab.",
        "findmnt --noheadings --list --output TARGET,SOURCE --types ext4 | sort; swapon --show=NAME --noheadings",
        prints(
            r"\A/ +/dev/vda\n/data +/dev/mapper/data\n/local +/dev/mapper/my-local\n/more +/dev/mapper/more\n"
            r"/scratch +/dev/mapper/scratch\n/dev/dm-\d+\n\Z"
        ),
    ),
    Step(
        "What cannot fails by itself: the system is up.",
        "systemctl is-active multi-user.target local-fs.target emergency.target absent.mount wrong.mount",
        prints(r"\Aactive\nactive\ninactive\ninactive\ninactive\n\Z"),
    ),
    Step(
        "The units of the volumes that failed say so, and no other.",
        "systemctl --failed --plain --no-legend | grep -v binfmt | cut -d' ' -f1 | sort",
        prints(r"\Acryptpilot\.service\ncryptpilot@absent\.service\ncryptpilot@wrong\.service\n\Z"),
    ),
    Step(
        "... and why.",
        "systemctl status --no-pager --full cryptpilot@wrong.service",
        prints("failed:   the secret does not open /dev/disk/by-id/virtio-wrong: no key slot takes it"),
        status=3,
    ),
    Step(
        "... and why.",
        "systemctl status --no-pager --full cryptpilot@absent.service",
        prints(f"failed:   /dev/disk/by-id/virtio-absent did not appear within {TIMEOUT} s"),
        status=3,
    ),
    Step(
        "A volume that is open has an active unit.",
        r"systemctl status --no-pager 'cryptpilot@my\x2dlocal.service'",
        prints("my-local: /dev/mapper/my-local is open"),
    ),
    Step(
        "Nobody waited for a device that nobody makes.",
        "journalctl --boot --no-pager | grep -c '[T]imed out waiting for device'",
        prints(r"\A0\n\Z"),
        status=1,
    ),
    Step(
        "Lines of crypttab that are left over ask for no passphrase.",
        "systemctl is-active cryptsetup.target 'systemd-cryptsetup@data.service'; systemctl list-jobs --no-legend",
        prints(r"\Aactive\nactive\n(No jobs.*\n)?(.*lab-.*\n)*\Z"),
    ),
    Step(
        "... and are named, and what to do about them.",
        "cryptpilot show data more",
        prints(
            r"^warning: /etc/crypttab:2: has systemd-cryptsetup open the device of volume data, .*: remove the line$\n"
            r"^warning: /etc/crypttab:3: .* volume more, .*: remove the line, and write /dev/mapper/more where .* used$"
        ),
    ),
    Step(
        "... by the check too.",
        "cryptpilot config check --skip-check-passphrase --keep-checking",
        prints(r"^data: warning: /etc/crypttab:2: has systemd-cryptsetup open the device"),
    ),
    Step("The disk that was absent is attached.", PLUG_IN),
    Step(
        "Its volume is opened.",
        "timeout 120 sh -c 'until systemctl --quiet is-active cryptpilot@absent.service; do sleep 1; done';"
        " cryptpilot show absent",
        prints("True +opened"),
    ),
    Step("It is closed by hand.", "cryptpilot close absent"),
    Step(
        "Its unit is over.",
        "timeout 60 sh -c 'while systemctl --quiet is-active cryptpilot@absent.service; do sleep 1; done'",
    ),
    Step("It is opened by its unit.", "systemctl start cryptpilot@absent.service; ls /dev/mapper", prints("^absent$")),
    Step(
        "Its unit is stopped while there is much to write; it is unmounted and closed.",
        "systemctl start absent.mount; findmnt --noheadings --output SOURCE /absent;"
        " head -c 30M /dev/urandom > /absent/much;"
        " systemctl stop cryptpilot@absent.service; ls /dev/mapper; systemctl is-active absent.mount"
        " cryptpilot@absent.service",
        prints(r"\A/dev/mapper/absent\n(?!(?:.*\n)*absent\n)(?:.*\n)+inactive\ninactive\n\Z"),
        status=3,
    ),
    Step("systemd reads everything anew.", "systemctl daemon-reload"),
    Step("The service is restarted; what failed fails again.", "systemctl restart cryptpilot.service", status=1),
    Step(
        "All is as it was.",
        "findmnt --noheadings --list --output TARGET --types ext4 | sort; swapon --show=NAME --noheadings",
        prints(r"\A/\n/data\n/local\n/more\n/scratch\n/dev/dm-\d+\n\Z"),
    ),
]


@pytest.fixture
def disks(tree: Path, site: machines.Site, tmp_path: Path) -> dict[str, Disk]:
    """The volumes' disks, by name, persistent ones initialized; one of them with a key that is lost."""
    names = volume_files(site, "")
    found = {name: Disk(blank_disk(tmp_path / f"{name}.img", 64 * MIB), name) for name in names}
    copy = clone(tree, tmp_path / "tree")
    (copy / "etc/lab-key").write_bytes(machines.EXEC_KEY)
    machines.configure(copy, volume_files(site, "/etc/lab-key"))
    given = [found[name] for name in INITIALIZED]
    machines.run_with_kms(site, copy, f"cryptpilot init {' '.join(INITIALIZED)} --yes", disks=given).check()
    return found


@pytest.fixture
def system(tree: Path, site: machines.Site, disks: dict[str, Disk], tmp_path: Path) -> Disk:
    """A system disk, an ordinary one."""
    root = prune(tree, tmp_path / "root")
    for file in (root / "etc/cryptpilot/volumes").iterdir():
        file.unlink()
    (root / "etc/lab-key").write_bytes(machines.EXEC_KEY)
    machines.configure(root, volume_files(site, "/etc/machine-id"), machines.settings(timeout=TIMEOUT))
    (root / "etc/fstab").write_text(FSTAB)
    uuids = {name: luks_uuid(disks[name]) for name in ("data", "more")}
    (root / "etc/crypttab").write_text(CRYPTTAB.format(**uuids))
    for name in ("data", "more", "local", "scratch", "absent", "wrong"):
        (root / name).mkdir()
    (root / "etc/systemd/network/dhcp.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=ipv4\n")
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    in_chroot(root, ["systemctl", "enable", "cryptpilot.service", "systemd-networkd.service"])
    return Disk(make_ext4(tmp_path / "system.img", root, 512 * MIB), "system")


def test_late_volumes_get_on_with_fstab_and_fail_alone(
    tree: Path,
    bookworm_initrd: Path,
    system: Disk,
    disks: dict[str, Disk],
    network: Namespace,
    kms: machines.Site,
    tmp_path: Path,
) -> None:
    """Complaints: data volumes deadlock with fstab; with two encrypted devices only the first opens."""
    report = machines.report_disk(tmp_path / "report.img")
    absent = disks.pop("absent")
    machine = qemu.Machine(
        kernel=kernel(tree),
        initrd=bookworm_initrd,
        cmdline=f"{qemu.CONSOLE} root=/dev/vda rw",
        disks=(system, *disks.values(), steps.steps_disk(tmp_path, STEPS, "root"), report),
        netns=network,
    )
    with qemu.Guest(machine, tmp_path / "console.log") as guest:
        if guest.wait(400, until=f"# {PLUG_IN}") is qemu.Ending.SEEN:
            guest.plug_in(absent)
        ending = guest.wait(400)
    result = guest.result(ending).check()
    found = machines.read_report(report)
    steps.check(STEPS, found)
    assert [(request["api"], request["outcome"]) for request in kms.requests()] == [("GetSecretValue", "ok")]
    said = found["journal"]
    assert said.index("Mounted local.mount") < said.index('volume "absent" could not be opened'), "a mount waited"
    require_clean_end(result)


WITNESS = """\
[Service]
Type=oneshot
ExecStart=sh -c 'echo a service has written to /data; touch /data/written'
StandardOutput=journal+console
"""


@pytest.fixture
def bare_system(tree: Path, tmp_path: Path) -> Disk:
    """A system disk with a late volume for /data that is required, and a service that writes there."""
    root = prune(tree, tmp_path / "bare")
    for file in (root / "etc/cryptpilot/volumes").iterdir():
        file.unlink()
    data = late(machines.exec_file("data", "/dev/disk/by-id/virtio-data", key="/etc/machine-id"))
    machines.configure(root, {"data": f"required = true\n{data}"})
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n/dev/mapper/data /data ext4 defaults 0 2\n")
    (root / "data").mkdir()
    units = root / "etc/systemd/system"
    (units / "witness.service").write_text(WITNESS)
    (units / "multi-user.target.wants/witness.service").symlink_to("../witness.service")
    in_chroot(root, ["systemctl", "enable", "cryptpilot.service"])
    return Disk(make_ext4(tmp_path / "bare.img", root, 512 * MIB), "system")


def test_a_required_volume_whose_disk_is_withheld_stops_the_boot_before_services_start(
    tree: Path, bookworm_initrd: Path, bare_system: Disk, tmp_path: Path
) -> None:
    """Attack: the host leaves a disk out, and services write to the disk of the system, which it can read."""
    machine = qemu.Machine(
        kernel=kernel(tree),
        initrd=bookworm_initrd,
        cmdline=f"{qemu.CONSOLE} root=/dev/vda rw cryptpilot.timeout=3",
        disks=(bare_system,),
    )
    with qemu.Guest(machine, tmp_path / "console.log") as guest:
        console = guest.result(guest.wait(200, until="root account is locked|a service has written")).console
    facts = [
        'volume "data" could not be opened',
        "provider: command cat",
        "failed:   /dev/disk/by-id/virtio-data did not appear within 3 s",
        "to do:    check that the disk is attached",
        "now:      required = true: the boot stops",
        "again:    systemctl restart cryptpilot@data.service && systemctl default",
        "Dependency failed for data.mount",
        "Reached target emergency.target",
    ]
    assert [fact for fact in facts if fact not in console] == [], console
    assert "a service has written" not in console


def require_clean_end(result: qemu.BootResult) -> None:
    """Fail if something was left busy when the machine was turned off."""
    for complaint in ("Not all DM devices detached", "Failed to unmount", "not unmounted", "target is busy"):
        assert complaint not in result.console, f"{result}\n{complaint}"

"""The user's guide, "Encrypt cloud disks attached to a confidential computing-capable ECS instance", step by step.

Its command lines are typed as it prints them, on a machine with its disks: /dev/nvme0n1 is the system disk, an
ordinary one, and /dev/nvme1n1 the data disk with two empty partitions. It is a machine of RPMs, with cryptsetup,
kernel, systemd and dracut as old as in the system that the guide is for. The guide's `yum install` is typed before the
machine is started, as it would take minutes under emulation. What is typed beyond the guide, to prove what it says,
says so: at the end of the first boot the package is upgraded, and at the end of the second removed.

The account is the one the cloud gives: an ordinary user who may use sudo. Without sudo, `cryptpilot show` needs root.
"""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import machines, steps
from tests.boot.matrix import WORDS
from tests.lab import net, qemu
from tests.lab.disk import Disk, blank_disk, partition
from tests.lab.fixtures import initrd_of, plain_initrd
from tests.lab.image import make_ext4, prune
from tests.lab.tree import in_chroot, kernel
from tests.packages import made, rpmroot
from tests.packages.managers import rpm_tree
from tests.steps import Holds, Outcome, Step, prints

if TYPE_CHECKING:
    from collections.abc import Sequence

USER = "ecs-user"
NEXT = "/opt/next.rpm"
"""A second release of the package, on the machine."""
PRINTED = Path(__file__).with_name("guide")
"""What is too long to stand here: files as the guide prints them."""


def shows(*volumes: str, **columns: str) -> Holds:
    """Hold when `cryptpilot show` has these values in each of the volumes' rows, and no complaint but one.

    As the guide has it made, data1.toml can be read by others.
    """

    def holds(outcome: Outcome) -> bool:
        found = [rows(outcome.out)[volume] for volume in volumes]
        complaints = [line for line in outcome.err.splitlines() if "can be read by others" not in line]
        return all(row[name] == columns[name] for row in found for name in columns) and not complaints

    return holds


def rows(table: str) -> dict[str, dict[str, str]]:
    """Return the rows of a `cryptpilot show`, by volume: each a mapping from the header's words."""
    header, rule, *lines = table.splitlines()
    spans = [slice(*match.span()) for match in re.finditer("-+", rule)]
    records = [{header[span].strip(): line[span].strip() for span in spans} for line in lines]
    return {record["Volume"]: record for record in records}


def lists_the_disks(outcome: Outcome) -> bool:
    """Hold when `lsblk` has the disks as the guide has them."""
    lines = [re.sub(r"^[^a-z]*", "", line).split() for line in outcome.out.splitlines()[1:]]
    found = {words[0]: (words[5], words[6:]) for words in lines}
    return {name: fact for name, fact in found.items() if name.startswith("nvme")} == {
        "nvme0n1": ("disk", ["/"]),
        "nvme1n1": ("disk", []),
        "nvme1n1p1": ("part", []),
        "nvme1n1p2": ("part", []),
    }


def is_an_empty_ext4(outcome: Outcome) -> bool:
    """Hold when `ls -la` lists nothing but what mkfs.ext4 makes."""
    return {line.split()[-1] for line in outcome.out.splitlines()[1:]} == {".", "..", "lost+found"}


def is_a_secret(outcome: Outcome) -> bool:
    """Hold for base64 of 256 bytes on a line without an end."""
    return len(base64.b64decode(outcome.out, validate=True)) == 256


def says_nothing(outcome: Outcome) -> bool:
    """Hold for a command line without a word, as when all went well."""
    return outcome.out + outcome.err == ""


def says_nothing_of_ours(outcome: Outcome) -> bool:
    """Hold when a package manager has no word of cryptpilot's: Debian's rpm has one of its own on being used."""
    return "cryptpilot: " not in outcome.out + outcome.err


def holds_both(outcome: Outcome) -> bool:
    """Hold for what was written to the two volumes."""
    return outcome.out == "lost\nsecret data\n"


PREPARE = [
    Step("Check the Cryptpilot version.", "cryptpilot --version", prints(r"^cryptpilot \d+\.\d+")),
    Step("Two disks; the data disk has two empty partitions.", "lsblk", lists_the_disks),
]

TEMPORARY = [
    Step("Create and configure data0.toml.", (PRINTED / "data0.sh").read_text().strip(), says_nothing),
    Step(
        "It needs no initialization because OTP is used, and it is not opened.",
        "sudo cryptpilot show",
        shows("data0", Initialized="Not required", Opened="False"),
    ),
    Step("Open the volume.", "sudo cryptpilot open data0"),
    Step("It is opened.", "sudo cryptpilot show", shows("data0", Opened="True")),
    Step("A virtual block device is created.", "sudo file -Ls /dev/mapper/data0", prints("ext4 filesystem data")),
    Step("Mount it.", "sudo mkdir -p /mnt/data0", says_nothing),
    Step("Mount it.", "sudo mount -t ext4 /dev/mapper/data0 /mnt/data0", says_nothing),
    Step("It is mounted.", "mount | grep data0", prints("^/dev/mapper/data0 on /mnt/data0 type ext4 ")),
    Step("It contains an empty Ext4 file system.", "ls -la /mnt/data0/", is_an_empty_ext4),
    Step("Unmount it.", "sudo umount /mnt/data0", says_nothing),
    Step("Close the volume.", "sudo cryptpilot close data0"),
    # the one line that is printed without sudo
    Step("It is closed.", "cryptpilot show", shows("data0", Opened="False"), user="root"),
    Step(
        "(Not in the guide: whoever is not root is told.)",
        "cryptpilot show",
        lambda outcome: "run this as root" in outcome.err,
        status=2,
    ),
]


def persistent(data1: str) -> list[Step]:
    """Return the steps for the persistent volume, described by the file `data1`."""
    return [
        Step("Generate a Base64-encoded secret.", "head -c 256 /dev/urandom | base64 -w 0", is_a_secret),
        Step(
            "Create and configure data1.toml.",
            f"sudo tee /etc/cryptpilot/volumes/data1.toml > /dev/null << 'EOF'\n{data1}EOF",
            says_nothing,
        ),
        Step(
            "It is not initialized and not opened.",
            "sudo cryptpilot show",
            shows("data1", Initialized="False", Opened="False"),
        ),
        Step("Initialize the volume.", "sudo cryptpilot init data1", answer="y\n"),
        Step(
            "It is initialized.",
            "sudo cryptpilot show",
            shows("data1", Initialized="True", Opened="False"),
        ),
        Step("Open the volume.", "sudo cryptpilot open data1"),
        Step("It is opened.", "sudo cryptpilot show", shows("data1", Initialized="True", Opened="True")),
        Step("A virtual block device is created.", "sudo file -Ls /dev/mapper/data1", prints("ext4 filesystem data")),
        Step("Mount it.", "sudo mkdir -p /mnt/data1", says_nothing),
        Step("Mount it.", "sudo mount -t ext4 /dev/mapper/data1 /mnt/data1", says_nothing),
        Step("Write data.", 'echo "secret data" | sudo tee /mnt/data1/data.txt > /dev/null', says_nothing),
        Step("Unmount it.", "sudo umount /mnt/data1", says_nothing),
        Step("Close the volume.", "sudo cryptpilot close data1"),
        Step("Reopen the volume.", "sudo cryptpilot open data1"),
        Step("Mount it.", "sudo mount -t ext4 /dev/mapper/data1 /mnt/data1", says_nothing),
        Step("The data still exists.", "cat /mnt/data1/data.txt", prints(r"\Asecret data\n\Z")),
    ]


BOTH_OPEN = Step("Both volumes are opened.", "sudo cryptpilot show", shows("data0", "data1", Opened="True"))

AUTO_OPEN = [
    *(
        Step(
            "Change the value of the auto_open field to true.",
            f"sudo sed -i 's/^auto_open = false/auto_open = true/' /etc/cryptpilot/volumes/{volume}.toml",
            says_nothing,
        )
        for volume in ("data0", "data1")
    ),
    Step("Have it run on system startup.", "sudo systemctl enable --now cryptpilot.service"),
    BOTH_OPEN,
    Step("(Not in the guide.)", "sudo mount -t ext4 /dev/mapper/data0 /mnt/data0", says_nothing),
    Step("(Not in the guide: something to be lost.)", "echo lost | sudo tee /mnt/data0/lost.txt"),
]

UPGRADE = [
    Step("(Not in the guide: the upgrade.)", f"sudo rpm --upgrade {NEXT}", says_nothing_of_ours),
    Step("It is the new one.", "rpm --query --queryformat '%{RELEASE}\\n' cryptpilot", prints(r"\A2\n\Z")),
    Step("It is enabled as before.", "systemctl is-enabled cryptpilot.service", prints(r"\Aenabled\n\Z")),
    Step("No unit of it has failed.", "systemctl list-units --failed --no-legend '*cryptpilot*'", says_nothing),
    Step("The volumes stay open, and in use.", "cat /mnt/data0/lost.txt /mnt/data1/data.txt", holds_both),
    BOTH_OPEN,
]

AFTER_RESTART = [
    BOTH_OPEN,
    Step("(Not in the guide.)", "sudo mount -t ext4 /dev/mapper/data1 /mnt/data1", says_nothing),
    Step("The data still exists.", "cat /mnt/data1/data.txt", prints(r"\Asecret data\n\Z")),
    Step("(Not in the guide.)", "sudo mount -t ext4 /dev/mapper/data0 /mnt/data0", says_nothing),
    Step("What the temporary volume held is lost.", "ls -la /mnt/data0/", is_an_empty_ext4),
]

REMOVAL = [
    Step("(Not in the guide: the removal.)", "sudo rpm --erase cryptpilot", says_nothing_of_ours),
    Step(
        "The volumes stay open, and in use.",
        "mountpoint /mnt/data0 && cat /mnt/data1/data.txt",
        prints("^secret data$"),
    ),
    Step("Nothing of it is started any more.", "ls /etc/systemd/system/*.wants | grep cryptpilot", status=1),
    Step("No unit of it has failed.", "systemctl list-units --failed --no-legend '*cryptpilot*'", says_nothing),
    Step("The volumes' files stay.", "sudo ls /etc/cryptpilot/volumes", prints(r"\Adata0\.toml\ndata1\.toml\n\Z")),
]


def data1_file(site: machines.Site) -> str:
    """Return data1.toml as the guide prints it, with the values of a KMS instance for those it makes unreadable."""
    text = (PRINTED / "data1.toml").read_text()
    values = {
        "KAAP.b183152a-c3bf-43ae-9399-a101607b****": site.client_key["KeyId"],
        "MIIJ0wIBAzCCCZ8GCSqGSIb3DQE****": site.client_key["PrivateKeyData"],
        "258372e962f5204ce648bc66243f****": (site.directory / "client_key_password").read_text(),
        "kst-bjj67d004a85ykq80****": machines.INSTANCE,
        text[text.index("-----BEGIN") : text.rindex('"""')]: (site.directory / "ca.pem").read_text(),
    }
    for printed, value in values.items():
        assert printed in text
        text = text.replace(printed, value)
    return text


@dataclass(frozen=True)
class Instance:
    """The machine of the guide: its disks, where its image files are, and whether its packages are RPMs."""

    directory: Path
    kernel: Path
    initrd: Path
    words: str
    system: Disk
    data: Disk
    rpm: bool


@pytest.fixture(params=[rpmroot.SUITE, pytest.param("bookworm", marks=pytest.mark.matrix)])
def instance(lab: None, tmp_path: Path, request: pytest.FixtureRequest) -> Instance:  # noqa: ARG001
    """A machine that the product was installed on, and no more: by dnf, or as `build.py install` does it."""
    release: str = request.param
    rpm = release == rpmroot.SUITE
    if rpm:
        tree = machines.equip(rpm_tree(tmp_path / "tree"))
        shutil.copy(made.rpm_of("2"), tree / NEXT.lstrip("/"))
        initrd = initrd_of(rpmroot.rpm_root(), "initrd-rpm")
    else:
        tree = machines.installed_tree(tmp_path / "tree", release=release)
        initrd = plain_initrd(release)
    root = prune(tree, tmp_path / "root")
    # this machine is slow, and slower yet when others work beside it
    machines.configure(root, {}, machines.settings(timeout=400))
    in_chroot(root, ["useradd", "--create-home", "--shell", "/bin/bash", USER])
    (root / f"etc/sudoers.d/{USER}").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 lab\n")
    (root / "etc/systemd/network/dhcp.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=ipv4\n")
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    in_chroot(root, ["systemctl", "enable", "systemd-networkd.service"])
    system = Disk(make_ext4(tmp_path / "system.img", root, 512 << 20), "system", nvme=True)
    data = partition(blank_disk(tmp_path / "data.img", 258 << 20), [128 << 20, 128 << 20])
    words = WORDS.get(release, "")
    return Instance(tmp_path, kernel(tree), initrd, words, system, Disk(data, "data", nvme=True), rpm)


def follow(instance: Instance, network: net.Namespace, what: Sequence[Step], name: str) -> None:
    """Turn the machine on, have the steps typed, turn it off, and check what came of them."""
    work = instance.directory / name
    work.mkdir()
    report = machines.report_disk(work / "report.img")
    machine = qemu.Machine(
        kernel=instance.kernel,
        initrd=instance.initrd,
        cmdline=f"{qemu.CONSOLE} root=/dev/nvme0n1 rw {instance.words}",
        disks=(instance.system, instance.data, steps.steps_disk(work, what, USER), report),
        netns=network,
    )
    qemu.boot(machine, timeout=900, log=work / "console.log").check()
    found = machines.read_report(report)
    steps.check(what, found)
    assert "INTEGRITY AEAD ERROR" not in found["journal"]


def test_the_guide_step_by_step(instance: Instance, network: net.Namespace, kms: machines.Site) -> None:
    upgrade, removal = (UPGRADE, REMOVAL) if instance.rpm else ([], [])
    follow(instance, network, [*PREPARE, *TEMPORARY, *persistent(data1_file(kms)), *AUTO_OPEN, *upgrade], "first")
    follow(instance, network, [*AFTER_RESTART, *removal], "restarted")
    assert b"secret data" not in instance.data.path.read_bytes()

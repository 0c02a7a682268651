"""Keys that a machine's TPM gives back, alone and together with KMS: whole machines, with OVMF that measures."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import machines, steps
from tests.boot.conftest import PATIENCE
from tests.boot.evidence import require_no_secret
from tests.lab import qemu
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_ext4, prune
from tests.lab.tree import in_chroot, kernel
from tests.steps import Step, prints

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.net import Namespace

TSS = ("libtss2-esys-3.0.2-0", "libtss2-rc0", "libtss2-tcti-device0")
"""What the distribution's own systemd-cryptsetup opens by a TPM with; the product does not use it."""
DEVICE = "/dev/disk/by-id/virtio-{}"
CHANGED = "PCR 9: the kernel or the initrd, or another file that GRUB read"
OPENED = r"(\w+): /dev/mapper/\w+ opened in"
BOTH = "/etc/cryptpilot/volumes/both.toml"

FIRST = [
    Step("The volumes are made.", "cryptpilot init data both --yes", prints("^both: .* is initialized")),
    Step(
        "Each opens with what it has.",
        "cryptpilot config check --keep-checking",
        lambda outcome: {"data: ok", "both: ok"} <= set(outcome.out.splitlines()),
    ),
    Step("A recovery key is enrolled.", "umask 077; cryptpilot recovery-key data > /root/recovery-key"),
    Step("The distribution's own tool opens the one ...", "cryptsetup luksDump " + DEVICE.format("data")),
    Step(
        "... by the token in its header.",
        f"/lib/systemd/systemd-cryptsetup attach theirs {DEVICE.format('data')} - tpm2-device=auto,headless=1"
        " && blkid -o value -s TYPE /dev/mapper/theirs && /lib/systemd/systemd-cryptsetup detach theirs",
        prints("^ext4$"),
    ),
    Step(
        "... and not the other, whose key in the TPM opens nothing alone.",
        f"/lib/systemd/systemd-cryptsetup attach theirs {DEVICE.format('both')} - tpm2-device=auto,headless=1",
        status=1,
    ),
    Step(
        "KMS knows no such secret ...",
        f"cp {BOTH} /root; sed -i 's/^secret_name = .*/secret_name = \"another\"/' {BOTH}",
    ),
    Step(
        "... and the TPM alone opens nothing.",
        "cryptpilot open both",
        lambda outcome: "another" in outcome.err and "KMS" in outcome.err,
        status=1,
    ),
    Step("It is configured as before.", f"cp /root/both.toml {BOTH}"),
]
LAST = [
    Step(
        "It is said which register changed ...",
        "cryptpilot open data",
        lambda outcome: CHANGED in outcome.err and "cryptpilot enroll" in outcome.err,
        status=1,
    ),
    Step("... and KMS alone opens nothing.", "cryptpilot open both", lambda outcome: CHANGED in outcome.err, status=1),
    Step("The recovery key opens the volume.", "cryptpilot open data --recovery-key < /root/recovery-key"),
    Step("It is closed.", "cryptpilot close data"),
    Step(
        "A new key is sealed to what was started.",
        "cryptpilot enroll data tpm2 --recovery-key < /root/recovery-key",
        prints("^data: a new key of encrypt .this machine.s TPM, .* opens it"),
    ),
    Step("It opens.", "cryptpilot open data", prints("is open$")),
]


@pytest.fixture
def tpm_tree(lab: None, site: machines.Site, tmp_path: Path) -> Path:  # noqa: ARG001
    """A tree with two volumes to be opened in the initrd: by the TPM, and by TPM and KMS together."""
    tree = machines.installed_tree(tmp_path / "tree", TSS)
    data = f'volume = "data"\ndev = "{DEVICE.format("data")}"\nauto_open = true\nmakefs = "ext4"\n[encrypt.tpm2]\n'
    both = machines.volume_file(site, volume="both", dev=DEVICE.format("both"))
    both = both.replace("[encrypt.kms]", "[encrypt.together.kms]") + "[encrypt.together.tpm2]\n"
    machines.configure(tree, {"data": data, "both": both}, machines.settings(timeout=PATIENCE))
    return tree


@pytest.mark.matrix
def test_a_machine_opens_by_its_tpm_until_it_is_started_with_something_else(
    tpm_tree: Path, network: Namespace, kms: machines.Site, tmp_path: Path
) -> None:
    image = machines.make_image(tpm_tree, tmp_path / "initrd.img")
    root = prune(tpm_tree, tmp_path / "root")
    (root / "etc/systemd/network/dhcp.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=ipv4\n")
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    in_chroot(root, ["systemctl", "enable", "cryptpilot.service", "systemd-networkd.service"])
    data, both = (Disk(blank_disk(tmp_path / f"{name}.img", 64 << 20), name) for name in ("data", "both"))
    system = Disk(make_ext4(tmp_path / "system.img", root, 512 << 20), "system")
    (tmp_path / "tpm").mkdir()
    machine = qemu.Machine(
        kernel(tpm_tree),
        image.path,
        f"{qemu.CONSOLE} root=/dev/vda rw",
        netns=network,
        uefi=True,
        tpm=tmp_path / "tpm",
    )

    def boot(name: str, asked: list[Step], words: str = "") -> tuple[str, dict[str, str]]:
        (tmp_path / name).mkdir()
        report = machines.report_disk(tmp_path / name / "report.img")
        disks = (system, data, both, steps.steps_disk(tmp_path / name, asked, "root"), report)
        # to a blank the same: PCR 9 has the command line
        here = replace(machine, disks=disks, cmdline=" ".join(filter(None, (machine.cmdline, words))))
        console = qemu.boot(here, timeout=400, log=tmp_path / name / "console.log").check().console
        found = machines.read_report(report)
        steps.check(asked, found)
        require_no_secret(kms, {**found, "console": console})
        return console, found

    boot("first", FIRST)
    # what is in the image has not changed: the key lies in the header
    kms.forget_requests()
    with qemu.Guest(replace(machine, disks=(system, data, both)), tmp_path / "again.log") as guest:
        opened: set[str] = set()
        ending = qemu.Ending.SEEN
        while opened != {"data", "both"} and ending is qemu.Ending.SEEN:
            ending = guest.wait(200, until=OPENED, on_line=lambda line: opened.update(re.findall(OPENED, line.text)))
        console = guest.result(qemu.Ending.SEEN).console
    assert opened == {"data", "both"}, console
    assert "Switch Root" not in console.partition("opened in")[0], console
    assert [(one["api"], one["outcome"]) for one in kms.requests()] == [("GetSecretValue", "ok")]
    console, _ = boot("changed", LAST, "changed=yes")
    assert console.count(CHANGED) >= 2

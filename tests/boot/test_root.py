"""Whole machines boot from a root volume that the initrd opens with a secret from KMS."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

from tests import machines, steps
from tests.boot.evidence import agent_lines, require_no_secret
from tests.lab import selinux
from tests.lab.disk import Disk, blank_disk, luks_uuid
from tests.lab.tree import SHARE, in_chroot
from tests.steps import Step, prints

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import Boot

LATER = """
echo nameserver 10.0.2.3 > /etc/resolv.conf
sed -i 's/^auto_open = false$/auto_open = true\\ninitrd = false/' /etc/cryptpilot/volumes/later.toml
"""
IMAGE = '"/boot/initrd.img-$(uname -r)"'
BY_HAND = [
    Step("SELinux is enforced.", "getenforce", prints(r"\AEnforcing\n\Z")),
    Step(
        "The helper's files say what it runs in, and so what it may.",
        "stat -c %C /run/cryptpilot/lock-device",
        prints("^system_u:object_r:initrc_runtime_t:s0$"),
    ),
    Step("A volume is configured ...", machines.exec_volume("data", "/dev/disk/by-id/virtio-data", integrity=True)),
    Step("(its key)", f"base64 -d <<< {base64.b64encode(machines.EXEC_KEY).decode()} > /run/key"),
    Step("... and made by hand.", f"{selinux.PERSON} cryptpilot init data --yes", prints("^data: .* is initialized")),
    Step("It is opened by hand.", f"{selinux.PERSON} cryptpilot open data", prints("^data: /dev/mapper/data is open")),
    Step("It can be used.", "mount /dev/mapper/data /mnt && touch /mnt/file && umount /mnt"),
    Step("It is closed by hand.", f"{selinux.PERSON} cryptpilot close data", prints("is closed$")),
    Step("A volume from KMS is configured ...", LATER),
    Step("... and made by hand.", f"{selinux.PERSON} cryptpilot init later --yes", prints("^later: .* is initialized")),
    Step(
        "Its line in fstab is read by systemd's own generator.",
        "echo '/dev/mapper/later /mnt ext4 rw 0 2' >> /etc/fstab; systemctl daemon-reload; systemctl cat mnt.mount",
        prints("^Requires=systemd-fsck@dev-mapper-later"),
    ),
    Step("It is opened and mounted.", "systemctl start mnt.mount; mountpoint /mnt", prints("is a mountpoint")),
    Step("There is an image.", f"touch {IMAGE}"),
    Step(
        "dracut makes another, with depmod; a whole one takes minutes here, see volumes/test_selinux.py.",
        f"{selinux.PERSON} cryptpilot initrd rebuild -- --no-hostonly --modules kernel-modules --drivers dm-crypt",
        lambda outcome: "in the new image cryptpilot is not in it, and would not open root" in outcome.err,
        status=1,
    ),
]


def test_a_machine_with_selinux_boots_from_a_root_volume_unlocked_from_kms(
    boot: Boot,
    image: machines.Image,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    kms: machines.Site,
    tmp_path: Path,
) -> None:
    # left over from a root that systemd-cryptsetup or dracut opened: both would ask for a passphrase, for ever
    uuid = luks_uuid(own_root_disk)
    words = f"rd.luks.uuid=luks-{uuid} luks.uuid={uuid}"
    data, later = (Disk(blank_disk(tmp_path / f"{name}.img", 64 << 20), name) for name in ("data", "later"))
    disks = (own_root_disk, scratch_disk, data, later, steps.steps_disk(tmp_path, BY_HAND, "root"), report_disk)
    console = boot(image, disks, f"{words} {selinux.WORDS}", timeout=900).console
    report = machines.read_report(report_disk)
    steps.check(BY_HAND, report)
    selinux.require_none_of_ours(console, report["journal"])
    assert report["root_source"].strip() == "/dev/mapper/root"
    competing = [place["place"] for one in json.loads(report["show.json"]) for place in one["competing"]]
    assert competing == [f"kernel command line: {word}" for word in words.split()]
    assert "enter passphrase" not in console
    assert re.search(r"^Subsystem:\s+cryptpilot$", report["luks-root"], re.MULTILINE)
    # exactly one request for each use of it, and it was for the secret: root; later, initialized and opened
    assert [(request["api"], request["outcome"]) for request in kms.requests()] == 3 * [("GetSecretValue", "ok")]
    # not verbose: one line a volume, the late helper's too, and nothing of a volume that is not opened at boot; beside
    # what is waited for, and what takes long, as on a machine that is busy
    said = sorted(line for line in agent_lines(console) if not re.search(": waiting: |: still ", line))
    assert [re.sub(r"[\d.]+ s$", "", line) for line in said] == [
        "root: /dev/mapper/root opened in ",
        "root: /dev/mapper/root was open already",
        "scratch: /dev/mapper/scratch opened in ",
    ]
    log = [(event["stage"], event["volume"], event["step"]) for event in machines.events(report)]
    assert log[0] == ("initrd", "", "start")
    assert log[-1] == ("system", "", "done")
    assert {("initrd", "root", step) for step in ("prepare", "wait-device", "fetch-key", "open")} <= set(log)
    assert {("system", "scratch", step) for step in ("wait-device", "format", "makefs", "open")} <= set(log)
    assert ("initrd", "", "network-up") in log
    told = json.loads(report["boot-report.json"])
    assert [(one["volume"], one["result"], one["stage"]) for one in told["volumes"]] == [
        ("root", "opened", "initrd"),
        ("scratch", "opened", "system"),
        ("later", "opened", "system"),
    ]
    assert {"kernel", "initrd", "pivot"} <= {mark["name"] for mark in told["marks"] if not mark["stage"]}
    assert told["problems"] == []
    opened = {volume["volume"]: volume["opened"] for volume in json.loads(report["show.json"])}
    assert opened == {"root": True, "scratch": True, "later": True, "data": False}
    require_no_secret(kms, {**report, "console": console})


def test_verbose_times_every_step_and_shows_no_secret(
    boot: Boot,
    boot_tree: Path,
    verbose_image: machines.Image,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    kms: machines.Site,
) -> None:
    console = boot(verbose_image, (own_root_disk, scratch_disk, report_disk)).console
    report = machines.read_report(report_disk)
    said = "\n".join(agent_lines(console))
    for step in ("prepare", "wait-device", "fetch-key", "open"):
        assert re.search(rf"^root: {step}: \d+\.\d{{3}} s", said, re.MULTILINE), step
    assert f"endpoint {machines.GATEWAY}:443" in said
    # it is the disk that the image says
    written, image = "etc/cryptpilot/identities/root.toml", verbose_image.path
    bound = in_chroot(boot_tree, ["lsinitrd", "-f", written, f"{SHARE}/{image.name}"], share=image.parent)
    assert bound == (kms.directory / "identities/root.toml").read_text()
    assert re.search(r"^network-up", said, re.MULTILINE)
    assert re.search(r"^root: /dev/mapper/root opened in", said, re.MULTILINE)
    # whoever watched saw the agent and its child
    words = report["words"].splitlines()
    assert {"boot-service", "cryptsetup", "--key-file=-"} <= set(words)
    require_no_secret(kms, {**report, "console": console})

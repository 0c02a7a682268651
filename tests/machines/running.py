"""Machines that run: a whole one that boots, and user-mode Linux with a KMS beside it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.disk import Disk, blank_disk
from tests.lab.image import fill_script, make_archive, prune
from tests.lab.qemu import CONSOLE, Machine
from tests.lab.run import LabError
from tests.lab.tree import SHARE, kernel
from tests.lab.uml import UmlResult, run_uml
from tests.machines.files import ROOT
from tests.machines.site import CHECKOUT, GATEWAY, KMS_FILES, kms_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lab.net import Namespace
    from tests.machines.site import Site
    from tests.machines.trees import Image

REPORT = "report"
"""Name of the disk on which the booted system leaves what it found."""
ROOT_DISK_BYTES = 768 << 20
REPORT_BYTES = 32 << 20
NO_SHELL = (
    r"cryptpilot: this boot has failed, .* there is no shell in this image, and the machine is turned off in 60 s"
)
"""What stands on the console in the end when a boot cannot go on; the machine turns itself off a minute later."""


def make_root_disk(site: Site, tree: Path, work: Path, more: str = "") -> Disk:
    """Make a disk whose root is a LUKS2 volume, in user-mode Linux.

    There the installed `cryptpilot init` formats it with a secret from the stand-in, `cryptpilot open` opens it, and
    the tree is unpacked into it. more: shell lines to be run in the end.
    """
    disk = Disk(blank_disk(work / "root.img", ROOT_DISK_BYTES), ROOT)
    if not (work / "root.tar").exists():
        make_archive(work / "root.tar", prune(tree, work / "pruned"))
    archive = Disk(work / "root.tar", "archive", readonly=True)
    script = f"""
cryptpilot init {ROOT} --yes
cryptpilot open {ROOT}
{fill_script(archive.device, f"/dev/mapper/{ROOT}")}
cryptpilot close {ROOT}
{more}
"""
    run_with_kms(site, tree, script, disks=[disk, archive], timeout=180).check()
    return disk


def run_with_kms(
    site: Site,
    tree: Path,
    script: str,
    *,
    disks: Sequence[Disk] = (),
    modules: Sequence[str] = (),
    memory: str = "1G",
    timeout: float = 120,
    kms: Sequence[str] = (),
) -> UmlResult:
    """Run a bash script in an installed tree in user-mode Linux, where the site's KMS answers at its real name.

    kms: more options of the KMS. It runs with the host's Python beside the tree, which has none.
    """
    lines = f"""
cd {CHECKOUT}
echo "127.0.0.1 {GATEWAY}" >> /etc/hosts
PYTHONDONTWRITEBYTECODE=1 {" ".join([*kms_command(site, SHARE, "/run/kms-ready"), *kms])} &
mkdir {KMS_FILES}; mount --bind {SHARE} {KMS_FILES}
mount --bind {tree} {tree}
for point in dev proc sys run; do mount --rbind /$point {tree}/$point; done
cp /etc/hosts {tree}/etc/hosts
until [ -e /run/kms-ready ]; do sleep 0.05; done
chroot {tree} /bin/bash -eu << 'END OF SCRIPT'
{script}
END OF SCRIPT
"""
    return run_uml(Path("/"), lines, disks=disks, modules=modules, memory=memory, timeout=timeout, share=site.directory)


def machine(tree: Path, image: Image, disks: tuple[Disk, ...], network: Namespace | None) -> Machine:
    """Put a machine together. It may write to its disks: give it copies."""
    return Machine(
        kernel=kernel(tree),
        initrd=image.path,
        cmdline=f"{CONSOLE} root=/dev/mapper/{ROOT} rw",
        disks=disks,
        netns=network,
    )


def report_disk(path: Path) -> Disk:
    """Make the disk on which the booted system leaves its report."""
    return Disk(blank_disk(path, REPORT_BYTES), REPORT)


def read_report(disk: Disk) -> dict[str, str]:
    """Return the files of a report, by name. A system that left none did not come up."""
    try:
        with tarfile.open(disk.path) as archive:
            members = [member for member in archive if member.isfile()]
            files = {
                Path(member.name).name: archive.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]
                for member in members
            }
    except tarfile.ReadError:
        files = {}
    if not files:
        raise LabError(f"{disk.path}: the booted system left no report")
    return files


def events(report: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the machine's event log."""
    return [json.loads(line) for line in report["events.jsonl"].splitlines()]

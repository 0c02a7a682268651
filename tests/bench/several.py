"""How long several volumes take that one command opens, beside one volume and beside one after the other."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from tests import machines
from tests.bench.table import columns, row, title
from tests.bench.timing import TIMED, Timing, medians
from tests.lab import net, qemu
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_ext4, prune
from tests.lab.run import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.workshop import Workshop

ROUNDS = 3
COUNTS = (1, 4, 8)
MOST = COUNTS[-1]
AIM = 1.5
"""Times one volume, for the most."""
SIZE = 64 << 20
ROOT_BYTES = 512 << 20
CONFIGURATIONS = "etc/bench"
"""One configuration for each kind, of the same volumes: only where the key is to come from differs."""
KEY = f"/{CONFIGURATIONS}/key"
KINDS = {
    "shared": "KMS, one secret for all",
    "own": "KMS, each its own secret",
    "exec": "a command that prints a file",
}

UNIT = """\
# Opens volumes and times it, when all else is done.

[Unit]
After=multi-user.target
Before=lab-report.service

[Service]
Type=oneshot
ExecStartPre=mkdir -p /run/lab-spy
ExecStart=/bin/bash -eu /usr/local/sbin/bench
StandardError=journal+console
"""


def measure(shop: Workshop) -> None:
    """Print the times of several volumes in user-mode Linux, and in QEMU, where there is a second processor."""
    work = shop.directory("several")
    site = replace(shop.site, secret_names=(machines.SECRET_NAME, *(f"secret{n}" for n in range(MOST))))
    disks = [Disk(blank_disk(work / f"d{n}.img", SIZE), f"d{n}") for n in range(MOST)]
    tree = prune(shop.tree, work / "tree")
    _configure(tree, site, disks)
    names = " ".join(f"v{n}" for n in range(MOST))
    script = f"cryptpilot -c /{CONFIGURATIONS}/exec init {names} --yes\n{_script()}"
    result = machines.run_with_kms(site, tree, script, disks=disks, timeout=1800).check()
    _print("in user-mode Linux, with one processor", medians(result.stdout))
    _print("in QEMU, with two processors", medians(_run_in_qemu(shop, site, tree, disks, work)))


def _configure(tree: Path, site: machines.Site, disks: Sequence[Disk]) -> None:
    volumes: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for number, disk in enumerate(disks):
        name, dev = f"v{number}", disk.device
        volumes["shared"][name] = machines.volume_file(site, volume=name, dev=dev)
        volumes["own"][name] = machines.volume_file(site, volume=name, dev=dev, secret_name=f"secret{number}")
        volumes["exec"][name] = machines.exec_file(name, dev, key=KEY)
    for kind, files in volumes.items():
        directory = tree / CONFIGURATIONS / kind
        (directory / "volumes").mkdir(parents=True)
        (directory / "global.toml").write_text(machines.settings(timeout=300))
        for name, text in files.items():
            path = directory / "volumes" / f"{name}.toml"
            path.write_text(text)
            path.chmod(0o600)
    (tree / KEY.lstrip("/")).write_bytes(base64.b64decode(site.secret))


def _script() -> str:
    """Write what is timed: the same for both machines."""
    return f"""
{TIMED}
one_after_the_other() {{
    local name
    for name in "$@"; do
        cryptsetup open --type=luks2 --key-file={KEY} "/dev/disk/by-id/virtio-d${{name#v}}" "$name"
    done
}}
for _ in {" ".join(map(str, range(ROUNDS)))}; do
    for count in {" ".join(map(str, COUNTS))}; do
        names=$(seq --format=v%g 0 $((count - 1)))
        for kind in {" ".join(KINDS)}; do
            timed "$kind-$count" cryptpilot -c "/{CONFIGURATIONS}/$kind" open $names
            for name in $names; do cryptsetup close "$name"; done
        done
        timed "bare-$count" one_after_the_other $names
        for name in $names; do cryptsetup close "$name"; done
    done
done
"""


def _run_in_qemu(shop: Workshop, site: machines.Site, tree: Path, disks: Sequence[Disk], work: Path) -> str:
    """Boot a system that times it, without the product's part in the boot, and return what it said."""
    (tree / "usr/local/sbin/bench").write_text(f"""
exec > /run/lab-spy/bench
device=$(basename "$(echo /sys/class/net/e*)")
ip link set "$device" up
ip address add 10.0.2.15/24 dev "$device"
echo "{net.LOOPBACK_IN_GUEST} {machines.GATEWAY}" >> /etc/hosts
{_script()}
""")
    (tree / "etc/systemd/system/bench.service").write_text(UNIT)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    (wants / "bench.service").symlink_to("/etc/systemd/system/bench.service")
    root = Disk(make_ext4(work / "root.img", tree, ROOT_BYTES), machines.ROOT)
    report = machines.report_disk(work / "report.img")
    with net.namespace() as network, machines.running_kms(site, network):
        machine = replace(
            machines.machine(shop.tree, shop.bare_image, (root, report, *disks), network),
            cmdline=f"{qemu.CONSOLE} root={root.device} rw",
            smp=2,
        )
        qemu.boot(machine, timeout=1800, log=work / "console.log").check()
    left = machines.read_report(report)
    if left["bench"].count("timed") != ROUNDS * len(COUNTS) * (len(KINDS) + 1):
        raise LabError(f"the booted system did not get to the end\n{left['journal']}")
    return left["bench"]


def _print(where: str, found: Mapping[str, Timing]) -> None:
    title(f"Volumes opened by one command {where} (median of {ROUNDS})")
    bare = {count: found[f"bare-{count}"] for count in COUNTS}
    lines = []
    for kind, text in {**KINDS, "bare": "cryptsetup open, one after the other"}.items():
        for count in COUNTS:
            one, this = found[f"{kind}-1"], found[f"{kind}-{count}"]
            lines.append(
                [
                    f"{text}, {count}",
                    f"{this.seconds:.2f} s",
                    f"{this.seconds / one.seconds:.2f}",
                    f"{this.seconds / bare[count].seconds:.2f}",
                    f"{this.processor:.2f} s",
                    f"{100 * this.share:.0f} %",
                    f"{100 * this.busy:.0f} %",
                ]
            )
    columns(["", "time", "to one", "to cryptsetup", "processor time", "of the time", "processors busy"], lines)
    row("aim", f"{MOST} volumes: at most {AIM} times one")

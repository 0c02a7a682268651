"""A machine whose root is opened with a key from a KBS, which the guest components ask for.

They are stand-ins (tests/kbs/guest.c), for no package here has the real ones; what starts them in the image, and gives
them what they need, is the product.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot.conftest import PATIENCE
from tests.boot.test_root import agent_lines, require_no_secret
from tests.headers import Template
from tests.lab import qemu
from tests.lab.disk import Disk
from tests.lab.net import LOOPBACK_IN_GUEST
from tests.lab.run import LabError, end, is_running, run, spawn
from tests.lab.tree import clone, in_chroot, kernel_release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.net import Namespace

SOURCE = machines.CHECKOUT / "tests/kbs/guest.c"
PORT = 8080
URL = f"http://{LOOPBACK_IN_GUEST}:{PORT}"
EVIDENCE = "measured-and-signed"
SOCKETS = "/run/confidential-containers"
PROGRAMS = ("attestation-agent", "confidential-data-hub", "confidential-data-hub-daemon")
# As the packages of Alibaba Cloud Linux have them.
AGENT = f"""\
[Unit]
Description=Attestation-Agent
After=network.target

[Service]
ExecStart=/usr/bin/attestation-agent --config-file /etc/trustiflux/attestation-agent.toml \
-a unix://{SOCKETS}/attestation-agent/attestation-agent.sock
Restart=always
RestartSec=5
Delegate=yes
KillMode=process

[Install]
WantedBy=multi-user.target
"""
DAEMON = """\
[Unit]
Description=Confidential Data Hub daemon
After=network-online.target
Wants=network-online.target

[Service]
Type=simple
ExecStart=/usr/bin/confidential-data-hub-daemon -c /etc/trustiflux/confidential-data-hub.toml
Restart=always
RestartSec=5
KillMode=process

[Install]
WantedBy=multi-user.target
"""
MODES = {
    "one-shot": f'kbs_url = "{URL}"\n',
    "daemon": 'cdh_type = "daemon"\n',
}


@dataclass(frozen=True)
class Broker:
    """The KBS: what it gives out, and what it was asked for."""

    directory: Path

    def asked(self) -> list[str]:
        return (self.directory / "asked").read_text().splitlines()


def volume_file(name: str, mode: str) -> str:
    """Write the configuration of a volume as the existing tool has it."""
    return f"""\
volume = "{name}"
dev = "/dev/disk/by-id/virtio-{name}"
auto_open = true
[encrypt.kbs]
{MODES[mode]}key_uri = "kbs:///default/disk/{name}"
"""


def install_guest_components(tree: Path) -> None:
    """Put the stand-ins where the packages have the guest components, with their services and configuration."""
    program = tree / "usr/bin" / PROGRAMS[0]
    run(["gcc", "-D_GNU_SOURCE", "-O1", "-o", program, SOURCE])
    for name in PROGRAMS[1:]:
        shutil.copy(program, tree / "usr/bin" / name)
    units = tree / "usr/lib/systemd/system"
    (units / "attestation-agent.service").write_text(AGENT)
    (units / "confidential-data-hub-daemon.service").write_text(DAEMON)
    settings = tree / "etc/trustiflux"
    settings.mkdir()
    (settings / "attestation-agent.toml").write_text(f'evidence = "{EVIDENCE}"\n')
    (settings / "confidential-data-hub.toml").write_text(
        f'socket = "unix://{SOCKETS}/cdh.sock"\n[kbc]\nname = "cc_kbc"\nurl = "{URL}"\n'
    )
    store = tree / "etc/ssl/certs/ca-certificates.crt"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.touch()


@pytest.fixture
def broker(site: machines.Site, network: Namespace, tmp_path: Path) -> Iterator[Broker]:
    """A KBS that gives out the secret that the root disk is made with, and another."""
    directory = tmp_path / "kbs"
    disks = directory / "resources/default/disk"
    disks.mkdir(parents=True)
    (disks / machines.ROOT).write_bytes(base64.b64decode(site.secret))
    (disks / "data").write_bytes(machines.EXEC_KEY)
    (directory / "evidence").write_text(EVIDENCE)
    command = [
        *(sys.executable, "-m", "tests.kbs.broker", "--listen", f"127.0.0.1:{PORT}"),
        *("--dir", str(directory), "--ready-file", str(directory / "ready")),
    ]
    process = spawn(network.command(command), env={**os.environ, "PYTHONPATH": str(machines.CHECKOUT)})
    with contextlib.ExitStack() as stack:
        stack.callback(end, process)
        deadline = time.monotonic() + 30
        while not (directory / "ready").exists():
            if not is_running(process) or time.monotonic() > deadline:
                raise LabError("The stand-in KBS did not start.")
            time.sleep(0.02)
        yield Broker(directory)


@pytest.mark.parametrize(
    ("root", "data"), [("one-shot", "daemon"), pytest.param("daemon", "one-shot", marks=pytest.mark.matrix)]
)
def test_a_machine_boots_with_keys_from_a_kbs(
    root: str,
    data: str,
    boot_tree: Path,
    site: machines.Site,
    broker: Broker,
    network: Namespace,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    tmp_path: Path,
) -> None:
    """One volume by the program, one by the daemon; of both the image has what it takes, and `initrd check` says so."""
    tree = clone(boot_tree, tmp_path / "tree")
    install_guest_components(tree)
    volumes = {"root": volume_file("root", root), "data": volume_file("data", data)}
    machines.configure(tree, volumes, machines.settings(timeout=PATIENCE))
    release = kernel_release(tree)
    image = tree / f"boot/initrd.img-{release}"
    in_chroot(tree, ["dracut", "--no-hostonly", image.relative_to(tree).as_posix(), release])
    in_chroot(tree, ["cryptpilot", "initrd", "check", "--kernel", release])
    data_disk = Disk(Template.made(tmp_path / "data.img", machines.EXEC_KEY).image, "data")
    disks = (own_root_disk, data_disk, scratch_disk, report_disk)
    machine = machines.machine(tree, machines.Image(image, ""), disks, network)
    console = qemu.boot(machine, timeout=400, log=tmp_path / "console.log").check().console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert sorted(broker.asked()) == ["default/disk/data 200", "default/disk/root 200"]
    opened = {(event["stage"], event["volume"]) for event in machines.events(report) if event["step"] == "outcome"}
    assert {("initrd", "root"), ("initrd", "data")} <= opened
    said = "\n".join(agent_lines(console))
    assert re.search(r"^data: /dev/mapper/data opened in", said, re.MULTILINE), said
    require_no_secret(site, {**report, "console": console})

"""A machine whose root is opened with a key from a KBS, which the guest components ask for; and one of its RAM role.

The guest components are stand-ins (tests/kbs/guest.c), for no package here has the real ones; what starts them in the
image, and gives them what they need, is the product.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.boot.conftest import PATIENCE
from tests.boot.evidence import require_no_secret
from tests.headers import Template
from tests.lab import qemu
from tests.lab.disk import Disk
from tests.lab.net import LOOPBACK_IN_GUEST, namespace
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


def install_guest_components(tree: Path, authorities: str) -> None:
    """Put the stand-ins where the packages have the guest components, with their services and configuration.

    authorities: the CAs that the system trusts.
    """
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
    store.write_text(authorities)


@contextlib.contextmanager
def running_broker(site: machines.Site, network: Namespace, directory: Path) -> Iterator[Broker]:
    """Run a KBS that gives out the secret that the root disk is made with, and another."""
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
    try:
        deadline = time.monotonic() + 30
        while not (directory / "ready").exists():
            if not is_running(process) or time.monotonic() > deadline:
                raise LabError("The stand-in KBS did not start.")
            time.sleep(0.02)
        yield Broker(directory)
    finally:
        end(process)


@pytest.mark.parametrize(
    ("root", "data"), [("one-shot", "daemon"), pytest.param("daemon", "one-shot", marks=pytest.mark.matrix)]
)
def test_a_machine_boots_with_keys_from_a_kbs_and_one_of_its_ram_role(
    root: str,
    data: str,
    boot_tree: Path,
    site: machines.Site,
    own_root_disk: Disk,
    scratch_disk: Disk,
    report_disk: Disk,
    tmp_path: Path,
) -> None:
    """No credentials are in the image, and `initrd check` finds in it what each way of asking takes.

    With the role, its name, region and CAs are found, and the metadata service wants its token.
    """
    tree = clone(boot_tree, tmp_path / "tree")
    install_guest_components(tree, (site.directory / "ca.pem").read_text())
    role = machines.role_file(volume="role", dev="/dev/disk/by-id/virtio-role")
    volumes = {"root": volume_file("root", root), "data": volume_file("data", data), "role": role}
    machines.configure(tree, volumes, machines.settings(timeout=PATIENCE))
    release = kernel_release(tree)
    image = tree / f"boot/initrd.img-{release}"
    in_chroot(tree, ["dracut", "--no-hostonly", image.relative_to(tree).as_posix(), release])
    in_chroot(tree, ["cryptpilot", "initrd", "check", "--kernel", release])
    within = in_chroot(tree, ["lsinitrd", "-f", "etc/cryptpilot/volumes/role.toml", f"boot/{image.name}"])
    assert within == role
    disks = [
        Disk(Template.made(tmp_path / f"{name}.img", key).image, name)
        for name, key in (("data", machines.EXEC_KEY), ("role", base64.b64decode(site.secret)))
    ]
    site.behave("ok")
    site.forget_requests()
    with namespace({machines.SHARED_GATEWAY: LOOPBACK_IN_GUEST}, [f"{machines.METADATA}/32"]) as network:
        machine = machines.machine(
            tree, machines.Image(image, ""), (own_root_disk, *disks, scratch_disk, report_disk), network
        )
        with (
            running_broker(site, network, tmp_path / "kbs") as broker,
            machines.running_kms(site, network, machines.role_command),
        ):
            console = qemu.boot(machine, timeout=400, log=tmp_path / "console.log").check().console
    report = machines.read_report(report_disk)
    assert report["root_source"].strip() == "/dev/mapper/root"
    assert sorted(broker.asked()) == ["default/disk/data 200", "default/disk/root 200"]
    assert [(request["api"], request["outcome"]) for request in site.requests()] == [("GetSecretValue", "ok")]
    asked = site.metadata_requests()
    assert {request["status"] for request in asked} == {200}
    assert [request["path"].rpartition("/")[2] for request in asked] == ["token", "region-id", "", "disk-reader"]
    assert [request["token"] for request in asked] == [False, True, True, True]
    opened = {
        event["volume"]
        for event in machines.events(report)
        if (event["stage"], event["step"], event["facts"].get("result")) == ("initrd", "outcome", "opened")
    }
    assert opened == {"root", "data", "role"}
    require_no_secret(site, {**report, "console": console})

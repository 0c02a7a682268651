"""QEMU, and the network from which nothing gets out."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.image import make_ext4, prune
from tests.lab.net import KMS_DOMAIN, LOOPBACK_IN_GUEST, namespace
from tests.lab.qemu import CONSOLE, CONTROL, Ending, Guest, Machine, boot
from tests.lab.run import LabError, end, run, spawn
from tests.lab.tree import kernel

if TYPE_CHECKING:
    import subprocess

    from tests.lab.net import Namespace

MB = 1 << 20

MARKER = """\
[Unit]
After=systemd-networkd-wait-online.service
Wants=systemd-networkd-wait-online.service
Before=serial-getty@ttyS0.service
SuccessAction=poweroff
[Service]
Type=oneshot
ExecStart=-/usr/bin/bash /etc/marker.sh
StandardOutput=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""

MARKER_SCRIPT = """\
say() {{ echo "MARKER $*"; }}
reach() {{ timeout 5 bash -c "< /dev/tcp/$1/$2" 2>/dev/null && say "reached $1:$2" || say "no way to $1:$2"; }}
say "root is $(findmnt -no SOURCE /), $(readlink -f /dev/disk/by-id/virtio-root)"
say "address $(ip -brief -4 address show scope global | tr -s ' ')"
say "kms is $(getent ahostsv4 kst-abc.{domain} | cut -d' ' -f1 | uniq)"
say "other is [$(getent ahosts www.aliyun.com)]"
reach 10.0.2.2 443
reach 10.0.2.2 {host_port}
reach 100.100.100.200 80
reach 192.0.2.1 443
"""


def listen(network: Namespace, address: str, port: int) -> subprocess.Popen[bytes]:
    """Serve something in the network, and return once it answers."""
    process = spawn(network.command([sys.executable, "-m", "http.server", str(port), "--bind", address]))
    connect = f"import socket; socket.create_connection(('{address}', {port}))"
    deadline = time.monotonic() + 20
    while True:
        try:
            run(network.command([sys.executable, "-c", connect]))
        except LabError:
            if time.monotonic() > deadline:
                raise
        else:
            return process


def test_network_has_dns_and_nothing_else(network: Namespace) -> None:
    look_up = "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 443, type=socket.SOCK_STREAM)[0][4][0])"
    assert run(network.command([sys.executable, "-c", look_up, f"kst-abc.{KMS_DOMAIN}"])) == f"{LOOPBACK_IN_GUEST}\n"
    with pytest.raises(LabError, match="Name or service not known"):
        run(network.command([sys.executable, "-c", look_up, "www.aliyun.com"]))
    assert set(network.queries()) == {f"kst-abc.{KMS_DOMAIN}", "www.aliyun.com"}
    assert run(network.command(["ip", "route"])) == ""
    assert run(network.command(["pwd"])) == f"{Path.cwd()}\n"


def test_network_goes_with_its_keeper(lab: None) -> None:  # noqa: ARG001
    with namespace() as network:
        keeper = Path(f"/proc/{network.pid}")
        assert keeper.exists()
    assert not keeper.exists()
    with pytest.raises(LabError):
        run(network.command(["true"]))


def test_debian_boots_with_a_plain_initrd(bookworm_tree: Path, bookworm_initrd: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        tree = prune(bookworm_tree, tmp_path / "tree")
        values = {"domain": KMS_DOMAIN, "host_port": host.getsockname()[1]}
        (tree / "etc/marker.sh").write_text(MARKER_SCRIPT.format(**values))
        (tree / "etc/systemd/system/marker.service").write_text(MARKER)
        (tree / "etc/systemd/network/dhcp.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=ipv4\n")
        (tree / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
        run(["systemctl", "--root", tree, "enable", "marker.service", "systemd-networkd.service"])
        disk = Disk(make_ext4(tmp_path / "root.img", tree, 400 * MB), "root")
        before = sha256(disk.path)
        seen = []
        with namespace(addresses=["100.100.100.200"]) as network:
            servers = [listen(network, "127.0.0.1", 443), listen(network, "100.100.100.200", 80)]
            machine = Machine(
                kernel=kernel(bookworm_tree),
                initrd=bookworm_initrd,
                cmdline=f"{CONSOLE} root={disk.device} ro",
                disks=(disk,),
                netns=network,
                snapshot=True,
            )
            result = boot(
                machine,
                timeout=240,
                log=tmp_path / "console.log",
                on_line=lambda line: seen.append(line) if "MARKER" in line.text else None,
            ).check()
            for server in servers:
                end(server)
    assert [line.text for line in seen] == [
        "MARKER root is /dev/vda, /dev/vda",
        f"MARKER address {seen[1].text.split()[2]} UP 10.0.2.15/24 metric 1024 ",
        "MARKER kms is 10.0.2.2",
        "MARKER other is []",
        "MARKER reached 10.0.2.2:443",
        f"MARKER no way to 10.0.2.2:{values['host_port']}",
        "MARKER reached 100.100.100.200:80",
        "MARKER no way to 192.0.2.1:443",
    ]
    assert result.at("MARKER root") == seen[0].seconds
    assert [line.seconds for line in result.lines] == sorted(line.seconds for line in result.lines)
    assert b"MARKER" in result.log.read_bytes()
    assert sha256(disk.path) == before


def test_panic_is_told_from_a_reboot(bookworm_tree: Path, tmp_path: Path) -> None:
    machine = Machine(kernel(bookworm_tree), None, f"{CONSOLE} root=/dev/vda", memory_mb=512)
    result = boot(machine, timeout=120, log=tmp_path / "console.log")
    result.check(Ending.PANICKED)
    with pytest.raises(AssertionError, match=r"Unable to mount root(?s:.)*expected: the guest powered off"):
        result.check()


def test_machine_can_be_watched_and_cut_off(bookworm_tree: Path, network: Namespace, tmp_path: Path) -> None:
    disk = Disk(blank_disk(tmp_path / "a,b.img", MB), "comma")
    machine = Machine(
        kernel(bookworm_tree), None, CONSOLE, disks=(disk,), memory_mb=512, netns=network, link_up_after=0.5
    )
    with Guest(machine, tmp_path / "console.log") as guest:
        assert guest.wait(60, until=r"Linux version 6\.1") is Ending.SEEN
        assert guest.qmp("query-status")["running"]
        assert guest.wait(0) is Ending.TIMED_OUT
        guest.set_link(up=False)
        with pytest.raises(LabError, match="QEMU refused eject"):
            guest.qmp("eject")
    result = guest.result(Ending.SEEN)
    assert result.at("Linux version") is not None
    assert result.log.read_bytes()


def test_a_machine_that_cannot_be_made_says_why(lab: None, tmp_path: Path) -> None:  # noqa: ARG001
    machine = Machine(tmp_path / "missing", None, CONSOLE)
    with pytest.raises(LabError, match=r"(?s)QEMU ended before.*missing"):
        boot(machine, timeout=10, log=tmp_path / "console.log")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("\x1b[0;1;39mBold\x1b[0m text\r", "Bold text"),
        ("\x1bc\x1b[?7l\x1b[2J[\x1b[0;32m  OK  \x1b[0m] Started", "[  OK  ] Started"),
        ("\x1b]0;title\x07prompt# ", "prompt# "),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_control_sequences_are_stripped(raw: str, text: str) -> None:
    assert CONTROL.sub("", raw) == text


@pytest.mark.parametrize("name", ["", "has space", "comma,", "a" * 21])
def test_disk_names_are_those_a_virtio_serial_number_can_be(name: str) -> None:
    with pytest.raises(ValueError, match="disk name"):
        Disk(Path("disk.img"), name)

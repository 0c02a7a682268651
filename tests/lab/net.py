"""A network of its own, from which nothing of this machine's network can be reached.

A machine started in a namespace sees the namespace's loopback as 10.0.2.2, and any address the namespace was given as
itself. Its DNS server answers the names it was told and denies that any other exists. Nothing of it has
a name on the host: it is gone with its processes, however they end.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.lab.run import LabError, contained, end, is_running, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from tests.lab.run import Argument

LOOPBACK_IN_GUEST = "10.0.2.2"
"""Where QEMU's user networking puts the loopback of the namespace it runs in."""

KMS_DOMAIN = "cryptoservice.kms.aliyuncs.com"

NAMES: Mapping[str, str] = MappingProxyType({KMS_DOMAIN: LOOPBACK_IN_GUEST})
"""What the names resolve to unless a test says otherwise; a name stands for all below it."""


@dataclass(frozen=True)
class Namespace:
    """A network namespace, known by the process that keeps it, beside its DNS server."""

    pid: int
    log: Path

    def command(self, argv: Sequence[Argument]) -> list[str]:
        """Return the command line that runs `argv` in the namespace, in the current directory."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--"]
        return [*enter, "env", f"--chdir={Path.cwd()}", *map(str, argv)]

    def queries(self) -> list[str]:
        """Return the names that were asked for so far, in order, once per question."""
        return re.findall(r"query\[\w+\] (\S+) from", self.log.read_text())


@contextlib.contextmanager
def namespace(names: Mapping[str, str] = NAMES, addresses: Sequence[str] = ()) -> Iterator[Namespace]:
    """Make a network namespace with nothing but loopback and a DNS server on it.

    `addresses` are put on its loopback: what listens there is reached by machines at that address, such as the
    metadata service's 100.100.100.200. Host programs: ``unshare``, ``nsenter``, ``ip``, ``dnsmasq``.
    """
    with tempfile.TemporaryDirectory(prefix="cryptpilot-net-") as name:
        directory = Path(name)
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        log = directory / "dns.log"
        setup = [
            "ip link set lo up",
            *(f"ip address add {address} dev lo" for address in addresses),
            # libslirp takes the DNS server it forwards to from this file.
            f"mount --bind {directory}/resolv.conf /etc/resolv.conf",
            'exec "$@"',
        ]
        with log.open("wb") as output:
            keeper = spawn(
                contained(["sh", "-euc", "\n".join(setup), "sh", *_dnsmasq(names)], "--net", "--mount"),
                stdout=output,
                stderr=output,
            )
        try:
            _wait_for_dns(keeper, log)
            yield Namespace(keeper.pid, log)
        finally:
            end(keeper)


def _dnsmasq(names: Mapping[str, str]) -> list[str]:
    return [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-hosts",
        "--no-resolv",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--log-queries",
        "--log-facility=-",
        *(f"--address=/{name}/{address}" for name, address in names.items()),
        # A name with an IPv4 address has no IPv6 address, but it exists.
        *(f"--local=/{name}/" for name in names),
        "--address=/#/",
    ]


def _wait_for_dns(keeper: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    # A process's own view of its network: no need to go in and ask.
    sockets = Path(f"/proc/{keeper.pid}/net/udp")
    while is_running(keeper) and time.monotonic() < deadline:
        if re.search(r": 0100007F:0035 ", sockets.read_text()):
            return
        time.sleep(0.01)
    raise LabError(f"The DNS server of the test network did not start.\n{log.read_text()}")

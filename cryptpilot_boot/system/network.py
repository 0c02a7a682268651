"""What this machine's network looks like."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import threading
from pathlib import Path

from cryptpilot_boot.system import private
from cryptpilot_boot.system.init import in_initrd

NETWORKD_STATE = Path("/run/systemd/netif/state")
RESOLV_CONF = Path("/etc/resolv.conf")
_RTF_UP = 0x1  # <linux/route.h>


def has_route() -> bool:
    """Tell whether there is a route to anywhere but this machine itself."""
    return _has_ipv4_route() or _has_ipv6_route()


def _has_ipv4_route() -> bool:
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except FileNotFoundError:
        return False
    return any(int(line.split()[3], 16) & _RTF_UP for line in lines)


def _has_ipv6_route() -> bool:
    """Look for a route beyond link-local (fe80), multicast (ff00) and loopback."""
    try:
        lines = Path("/proc/net/ipv6_route").read_text().splitlines()
    except FileNotFoundError:
        return False
    routes = (line.split() for line in lines)
    return any(fields[-1] != "lo" and not fields[0].startswith(("fe80", "ff")) for fields in routes)


def adopt_name_servers() -> bool:
    """In an initrd, tell the C library the name servers that systemd-networkd got by DHCP; False when none is known.

    In an image without systemd-resolved no other program does, and no name could be resolved. Does nothing in
    the booted system, nor where /etc/resolv.conf names a server already (the other network stacks write it).
    """
    if not in_initrd() or "nameserver" in _text(RESOLV_CONF):
        return True
    servers = networkd_name_servers(_text(NETWORKD_STATE))
    if servers:
        # In one step, because other programs may resolve names just now. It may be a link to nowhere, which is
        # replaced.
        made = RESOLV_CONF.with_name(f"resolv.conf.{threading.get_ident()}")
        private.write(made, "".join(f"nameserver {server}\n" for server in servers), private.PUBLIC_FILE)
        made.replace(RESOLV_CONF)
    return bool(servers)


def limit_lookups() -> None:
    """Have this process ask each name server at most twice, 2 s each time; else three that are silent take 30 s.

    See RES_OPTIONS in resolv.conf(5). An administrator's own stays.
    """
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")


def networkd_name_servers(state: str) -> list[str]:
    """Return the addresses in the DNS= line of networkd's state file, at most the three resolv.conf(5) takes."""
    fields = dict(line.split("=", 1) for line in state.splitlines() if "=" in line)
    servers = []
    for word in fields.get("DNS", "").split():
        with contextlib.suppress(ValueError):  # a port or a name for TLS, which resolv.conf cannot say
            servers.append(str(ipaddress.ip_address(word.partition("#")[0])))
    return servers[:3]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""

"""What the agent costs a boot."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from tests import machines
from tests.bench.table import MIB, row, title
from tests.lab import net, qemu
from tests.lab.disk import Disk
from tests.lab.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.workshop import Workshop

BOOTS = 3


def measure(shop: Workshop) -> None:
    """Print how long a root volume takes from network-up to open, beside the bare `cryptsetup open` in it."""
    work = shop.directory("boots")
    root = machines.make_root_disk(shop.site, shop.tree, work)
    found = [_boot(shop, root, work) for _ in range(BOOTS)]
    title(f"Boots in QEMU under software emulation (median of {BOOTS}; all else there is slow alike)")
    for name, text in (
        ("start", "agent started, since power-on"),
        ("ready", "agent ready, since power-on"),
        ("network-up", "network up, since power-on"),
        ("opened", "root volume open, since power-on"),
        ("network-to-open", "network up to root volume open"),
        ("waited", "network up (or agent ready, if later) to open"),
        ("fetch-key", "  of it the answer of KMS"),
        ("open", "  of it cryptsetup open"),
    ):
        row(text, f"{statistics.median(one[name] for one in found):.2f} s")
    ratio = statistics.median(one["waited"] / one["open"] for one in found)
    row("ratio of that to cryptsetup open alone", f"{ratio:.1f}")
    row("peak memory of the agent", f"{max(one['peak'] for one in found) / MIB:.1f} MiB")


def _boot(shop: Workshop, root: Disk, work: Path) -> dict[str, float]:
    disk = Disk(work / "boot.img", root.name)
    run(["cp", "--sparse=always", root.path, disk.path])
    report = machines.report_disk(work / "report.img")
    with net.namespace() as network, machines.running_kms(shop.site, network):
        machine = machines.machine(shop.tree, shop.image, (disk, report), network)
        qemu.boot(machine, timeout=240, log=work / "console.log").check()
    events = machines.events(machines.read_report(report))
    ends: dict[str, dict[str, Any]] = {event["step"]: event for event in events if event["phase"] in ("end", "note")}
    times = {step: ends[step]["boot"] for step in ("start", "ready", "network-up")}
    opened = ends["open"]["boot"]
    return {
        **times,
        "opened": opened,
        "network-to-open": opened - times["network-up"],
        "waited": opened - max(times["network-up"], times["ready"]),
        "fetch-key": ends["fetch-key"]["seconds"],
        "open": ends["open"]["seconds"],
        "peak": ends["done"]["facts"]["peak_memory"],
    }

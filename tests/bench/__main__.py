"""`make bench`: what the agent costs a boot. Figures, no judgement: nothing here is asserted."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests import machines
from tests.lab import net, qemu
from tests.lab.disk import Disk
from tests.lab.run import run

BOOTS = 3
STARTS = 7
MIB = 1 << 20


def main() -> None:
    """Measure, and print a table for each question."""
    with tempfile.TemporaryDirectory(prefix="cryptpilot-bench-") as name:
        work = Path(name)
        site = machines.make_site(work / "kms")
        tree = machines.installed_tree(work / "tree")
        machines.configure(tree, {machines.ROOT: machines.volume_file(site)}, machines.settings())
        image = measure_image(tree, work)
        measure_start(work, site)
        measure_boots(site, tree, image, work)


def measure_image(tree: Path, work: Path) -> machines.Image:
    """Print what the agent adds to an image, compressed as dracut does by default."""
    image = machines.make_image(tree, work / "with.img")
    bare = machines.make_image(tree, work / "without.img", "--omit", "cryptpilot")
    network = machines.make_image(tree, work / "network.img", "--omit", "cryptpilot", "--add", "network")
    sizes = {name: one.path.stat().st_size for name, one in (("with", image), ("bare", bare), ("net", network))}
    title("Generic initrd of Debian 12, compressed as dracut does by default")
    row("without cryptpilot", f"{sizes['bare'] / MIB:.2f} MiB")
    row("without cryptpilot, with dracut's network module", f"{sizes['net'] / MIB:.2f} MiB")
    row("with cryptpilot and a KMS volume", f"{sizes['with'] / MIB:.2f} MiB")
    added = sizes["with"] - sizes["net"]
    row("added by cryptpilot", f"{added / MIB:.2f} MiB ({added} bytes), {sizes['with'] / sizes['net']:.2f} times")
    row("aim", "at most 12 MiB")
    return image


def measure_start(work: Path, site: machines.Site) -> None:
    """Print the processor time from the start of the agent to its being ready, on this machine."""
    config = work / "etc"
    (config / "volumes").mkdir(parents=True)
    absent = machines.volume_file(site, dev="/dev/cryptpilot-bench-absent")
    (config / "volumes/root.toml").write_text(absent)
    (config / "volumes/root.toml").chmod(0o600)
    (config / "global.toml").write_text(machines.settings(timeout=1))
    agent = machines.CHECKOUT / "build/dist/cryptpilot/cryptpilot"
    script = (
        f"mount -t tmpfs tmpfs /run; {agent} -c {config} boot-service --stage system > /dev/null; cat /run/cryptpilot/*"
    )
    facts = []
    for _ in range(STARTS):
        # its device never comes, so it fails, and says in its log how far it had got by when
        output = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        events = [json.loads(line) for line in output.splitlines()]
        facts.append({event["step"]: event["facts"] for event in events})
    python = [_cpu_of_python() for _ in range(STARTS)]
    ready = statistics.median(fact["ready"]["cpu"] for fact in facts)
    title(f"Start of the agent on this machine (median of {STARTS})")
    row("processor time, start to ready", f"{ready:.3f} s")
    row("time, start to ready", f"{statistics.median(fact['ready']['process_age'] for fact in facts):.3f} s")
    row("aim", "0.3 s of processor time")
    row("processor time of a bare `python3 -c pass`", f"{statistics.median(python):.3f} s")
    row("ratio to bare Python", f"{ready / statistics.median(python):.1f}")
    row("peak memory", f"{max(fact['done']['peak_memory'] for fact in facts) / MIB:.1f} MiB")


def _cpu_of_python() -> float:
    measure = "import resource, subprocess; subprocess.run(['/usr/bin/python3', '-c', 'pass']);"
    measure += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    return float(run(["/usr/bin/python3", "-c", measure]))


def measure_boots(site: machines.Site, tree: Path, image: machines.Image, work: Path) -> None:
    """Print how long a root volume takes from network-up to open, beside the bare `cryptsetup open` in it."""
    root = machines.make_root_disk(site, tree, work)
    found = [_boot(site, tree, image, root, work) for _ in range(BOOTS)]
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


def _boot(site: machines.Site, tree: Path, image: machines.Image, root: Disk, work: Path) -> dict[str, float]:
    disk = Disk(work / "boot.img", root.name)
    run(["cp", "--sparse=always", root.path, disk.path])
    report = machines.report_disk(work / "report.img")
    with net.namespace() as network, machines.running_kms(site, network):
        machine = machines.machine(tree, image, (disk, report), network)
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


def title(text: str) -> None:
    """Print the head of a table."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def row(name: str, value: str) -> None:
    """Print a line of a table."""
    print(f"{name:<50} {value}", flush=True)


if __name__ == "__main__":
    main()

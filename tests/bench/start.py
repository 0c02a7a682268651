"""How long the agent takes to get ready, on this machine itself."""

from __future__ import annotations

import json
import statistics
import subprocess
from typing import TYPE_CHECKING, Any

from tests import machines
from tests.bench.table import MIB, row, title
from tests.lab.run import run

if TYPE_CHECKING:
    from tests.bench.workshop import Workshop

STARTS = 7


def measure(shop: Workshop) -> None:
    """Print the processor time from the start of the agent to its being ready, on this machine."""
    facts = starts(shop)
    python = [_cpu_of_python() for _ in range(STARTS)]
    ready = statistics.median(fact["ready"]["cpu"] for fact in facts)
    title(f"Start of the agent on this machine (median of {STARTS})")
    row("processor time, start to ready", f"{ready:.3f} s")
    row("time, start to ready", f"{statistics.median(fact['ready']['process_age'] for fact in facts):.3f} s")
    row("aim", "0.12 s of processor time")
    row("processor time of a bare `python3 -c pass`", f"{statistics.median(python):.3f} s")
    row("ratio to bare Python", f"{ready / statistics.median(python):.1f}")
    row("peak memory", f"{max(fact['done']['peak_memory'] for fact in facts) / MIB:.1f} MiB")


def starts(shop: Workshop) -> list[dict[str, Any]]:
    """Start the agent several times on this machine; return the facts of its events, by step, of each time."""
    config = shop.directory("start")
    (config / "volumes").mkdir()
    absent = machines.volume_file(shop.site, dev="/dev/cryptpilot-bench-absent")
    (config / "volumes/root.toml").write_text(absent)
    (config / "volumes/root.toml").chmod(0o600)
    (config / "global.toml").write_text(machines.settings(timeout=1))
    agent = machines.CHECKOUT / "build/dist/cryptpilot/cryptpilot"
    run_agent = f"{agent} -c {config} boot-service --stage system > /dev/null"
    script = f"mount -t tmpfs tmpfs /run; {run_agent}; cat /run/cryptpilot/events.jsonl"
    facts: list[dict[str, Any]] = []
    for _ in range(STARTS):
        # its device never comes, so it fails, and says in its log how far it had got by when
        output = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        events = [json.loads(line) for line in output.splitlines()]
        facts.append({event["step"]: event["facts"] for event in events})
    return facts


def _cpu_of_python() -> float:
    measure = "import resource, subprocess; subprocess.run(['/usr/bin/python3', '-c', 'pass']);"
    measure += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    return float(run(["/usr/bin/python3", "-c", measure]))

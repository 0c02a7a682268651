"""Run a program and say what it cost: `python -m tests.bench.watch DISK PROGRAM [ARGUMENT...]`, in a machine.

Prints one JSON object: seconds; written, discarded: bytes that the kernel has had the disk (a name such as "ubda") do
so with; memory: the most each program had at a time, in bytes, by the kernel's own account.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

LOOK_AGAIN = 0.1  # seconds; what a program takes in its last moment is missed, no more
_SECTOR = 512  # Documentation/block/stat.rst: whatever the device's own


def main() -> None:
    """Run what the command line says."""
    disk, *argv = sys.argv[1:]
    written, discarded = io(disk)
    started = time.monotonic()
    memory: dict[str, int] = {}
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        look(process.pid, memory)
        time.sleep(LOOK_AGAIN)
    seconds = time.monotonic() - started
    # what is still on its way to the disk counts as well
    subprocess.run(["sync"], check=True)
    now_written, now_discarded = io(disk)
    facts = {
        "seconds": seconds,
        "written": now_written - written,
        "discarded": now_discarded - discarded,
        "memory": memory,
    }
    print(json.dumps(facts))
    sys.exit(process.returncode)


def io(disk: str) -> tuple[int, int]:
    """Return how many bytes of a disk were written and discarded since power-on."""
    fields = Path(f"/sys/block/{disk}/stat").read_text().split()
    return int(fields[6]) * _SECTOR, int(fields[13]) * _SECTOR


def look(first: int, memory: dict[str, int]) -> None:
    """Note the peak of every process that is not older than the first."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal() or int(directory.name) < first:
            continue
        with contextlib.suppress(OSError):  # it is gone
            status = (directory / "status").read_text()
            facts = dict(re.findall(r"^(Name|VmHWM):\s+(\S+)", status, re.MULTILINE))
            if "VmHWM" in facts:  # kernel threads have none
                memory[facts["Name"]] = max(memory.get(facts["Name"], 0), int(facts["VmHWM"]) << 10)


if __name__ == "__main__":
    main()

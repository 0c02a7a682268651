"""Run a program and say what it cost: `python -m tests.bench.watch DISK PROGRAM [ARGUMENT...]`, in a machine.

Prints one JSON object: seconds; written, discarded: bytes that the kernel has had the disk (a name such as "ubda") do
so with; memory: the most each program had at a time, in bytes, by the kernel's own account; together: the most they
all had at a time, where what several share counts for each; in_memory: by how much files in tmpfs grew at most;
programs: seconds that each program which this one has started was at work, that of another root by its name there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

LOOK_AGAIN = 0.1  # seconds; what a program takes in its last moment is missed, no more
_SECTOR = 512  # Documentation/block/stat.rst: whatever the device's own


def main() -> None:
    """Run what the command line says."""
    disk, *argv = sys.argv[1:]
    written, discarded = io(disk)
    started = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    watch = Watch(process.pid, in_tmpfs())
    while process.poll() is None:
        watch.look()
        time.sleep(LOOK_AGAIN)
    seconds = time.monotonic() - started
    # what is still on its way to the disk counts as well
    subprocess.run(["sync"], check=True)
    now_written, now_discarded = io(disk)
    facts = {
        "seconds": seconds,
        "written": now_written - written,
        "discarded": now_discarded - discarded,
        "memory": watch.memory,
        "together": watch.together,
        "in_memory": watch.in_memory,
        "programs": watch.programs,
    }
    print(json.dumps(facts))
    sys.exit(process.returncode)


def io(disk: str) -> tuple[int, int]:
    """Return how many bytes of a disk were written and discarded since power-on."""
    fields = Path(f"/sys/block/{disk}/stat").read_text().split()
    return int(fields[6]) * _SECTOR, int(fields[13]) * _SECTOR


def in_tmpfs() -> int:
    """Return how many bytes all files in memory have."""
    found = re.search(r"^Shmem:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 10


@dataclasses.dataclass
class Watch:
    """What was seen of a process and all that are younger. before: bytes in tmpfs when it began."""

    first: int
    before: int
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    together: int = 0
    in_memory: int = 0
    programs: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    _last: float = dataclasses.field(default_factory=time.monotonic)

    def look(self) -> None:
        """Note what there is just now."""
        now = time.monotonic()
        since, self._last = now - self._last, now
        together = 0
        for directory in Path("/proc").iterdir():
            if not directory.name.isdecimal() or int(directory.name) < self.first:
                continue
            with contextlib.suppress(OSError):  # it is gone
                status = (directory / "status").read_text()
                facts = dict(re.findall(r"^(Name|PPid|VmHWM|VmRSS):\s+(\S+)", status, re.MULTILINE))
                if "VmHWM" not in facts:  # kernel threads have none
                    continue
                name = facts["Name"]
                self.memory[name] = max(self.memory.get(name, 0), int(facts["VmHWM"]) << 10)
                together += int(facts["VmRSS"]) << 10
                if int(facts["PPid"]) == self.first:
                    words = (directory / "cmdline").read_text().split("\0")
                    self.programs[name_of(words) or name] += since
        self.together = max(self.together, together)
        self.in_memory = max(self.in_memory, in_tmpfs() - self.before)


def name_of(words: list[str]) -> str:
    """Name the program that a command line is for: what is run in another root (`chroot DIRECTORY PROGRAM`) by itself.

    "" for an empty one, as of a process that is ending.
    """
    program = words[words.index("chroot") + 2] if "chroot" in words[1:-2] else words[0]
    return program.rpartition("/")[2]


if __name__ == "__main__":
    main()

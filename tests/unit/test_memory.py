"""What is in memory stays there: no core dump, no swap; and it costs no more memory than before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

STATUS = """
from pathlib import Path
def status():
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return [int(fields[name].split()[0]) for name in ("VmSize", "VmLck", "VmRSS")]
"""

LOCK = (
    STATUS
    + """
import threading
from cryptpilot_boot.system.process import lock_memory
_, before, _ = status()
lock_memory()
size, locked, resident = status()
end = threading.Event()
threads = [threading.Thread(target=end.wait) for _ in range(16)]
for thread in threads: thread.start()
more_size, more_locked, more_resident = status()
end.set()
print(before, locked / size, more_size - size, more_locked - locked, more_resident - resident)
"""
)


def python(code: str, *before: str) -> str:
    command = [*before, sys.executable, "-c", code]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.root
def test_all_memory_is_locked_but_only_what_is_touched_is_taken() -> None:
    before, share, size, locked, resident = map(float, python(LOCK).split())
    assert before == 0
    assert share > 0.9
    # sixteen stacks of 8 MiB and what else a thread reserves: locked as it is touched, and next to nothing is
    assert size > 16 * 8 * 1024 * 0.9
    assert locked > 16 * 8 * 1024 * 0.9
    assert resident < 4 * 1024


@pytest.mark.root
def test_a_child_has_no_locked_memory_and_no_core_dump_either() -> None:
    code = """
from cryptpilot_boot.system import process, run
process.keep_memory_private()
process.lock_memory()
print(run.run(["sh", "-c", "ulimit -H -c; ulimit -S -c; grep VmLck /proc/$$/status"])[1])
"""
    # ulimit counts blocks of 512 bytes; the kernel counts bytes
    assert python(code).split() == ["0", "0", "VmLck:", "0", "kB"]
    code = code.replace("ulimit -H -c; ulimit -S -c; grep VmLck", "grep core").replace("status", "limits")
    assert python(code).split() == ["Max", "core", "file", "size", "1", "1", "bytes"]


POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")

REFUSED = """
import resource
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.process import keep_memory_private, lock_memory
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
keep_memory_private()
try:
    lock_memory()
except CryptpilotError as error:
    print(error.what, error.hint, sep="\\n")
"""


@pytest.mark.parametrize(
    ("limit", "why"), [("--memlock=65536", "Cannot allocate memory"), ("--memlock=0", "Operation not permitted")]
)
def test_a_refusal_is_told_with_what_to_do(limit: str, why: str) -> None:
    assert python(REFUSED, "prlimit", limit, *POWERLESS).splitlines() == [
        f"this process's memory cannot be kept out of swap: mlockall: {why}",
        "run this as root, or raise ulimit -l",
    ]

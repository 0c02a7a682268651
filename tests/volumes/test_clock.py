"""A clock that is set while a thread waits; one that the host set back, to make an old certificate good again."""

from __future__ import annotations

import json
import re
from pathlib import Path

from buildlib import interpreter
from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

RECORD = "/usr/libexec/cryptpilot/image.json"
BACK = 12 * 3600
"""Seconds by which the clock is set back: the certificate was good then, and so was the CA's own."""


def test_an_initrd_whose_clock_is_set_back_believes_no_certificate_that_ran_out(
    site: machines.Site, tree: Path, tmp_path: Path
) -> None:
    """The booted system does: there the clock is the time service's. The gateway's clock is this machine's."""
    site.behave("ok")
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 << 20), "d1")
    result = machines.run_with_kms(
        site,
        tree,
        f"""
rm -f /etc/cryptpilot/volumes/*
umask 077
cat > /etc/cryptpilot/volumes/data1.toml << 'EOF'
{machines.volume_file(site, volume="data1", dev=disk.device)}
EOF
set_back() {{ date --set="@$(($(date +%s) - {BACK}))" > /dev/null; }}
cryptpilot initrd record > {RECORD}
set_back
cryptpilot init data1 --yes
cryptpilot open data1
cryptpilot close data1
touch /etc/initrd-release
cryptpilot boot-service --stage initrd > /run/said 2>&1 || true
echo "after the initrd: $(ls /dev/mapper)"
cat /run/said
grep '"step": *"clock"' /run/cryptpilot/*.jsonl
date +"clock %s"; date --date="$(sed -n 's/.*"made": "\\(.*\\)".*/\\1/p' {RECORD})" +"image %s"
# and once more, by hand
set_back
! cryptpilot open data1 2>&1 || exit 9
date +"clock %s"
""",
        disks=[disk],
        kms=["--expired"],
    ).check()
    said = result.stdout
    assert "after the initrd: control\n" in said
    assert re.search(
        r"this machine's clock said [0-9: -]+ UTC, before this image was made, and was set to that time, ", said
    )
    assert said.count("certificate has expired") >= 2
    (image,) = re.findall(r"^image (\d+)", said, re.MULTILINE)
    clocks = re.findall(r"^clock (\d+)", said, re.MULTILINE)
    assert len(clocks) == 2
    assert all(int(image) <= int(clock) < int(image) + 600 for clock in clocks)
    (event,) = re.findall(r'^.*"step": *"clock".*$', said, re.MULTILINE)
    assert '"by": "this image"' in event


# Each kind of wait there is, while another thread sets the clock: by half a year, to and fro.
WAITS = """
import json, queue, subprocess, threading, time

def nothing_comes():
    try:
        queue.Queue().get(timeout=1)
    except queue.Empty:
        return

def held(lock):
    threading.Thread(target=lock.acquire).start()
    while lock.acquire(blocking=False):
        lock.release()
    lock.acquire(timeout=1)

def slow():
    try:
        subprocess.run(["sleep", "30"], timeout=1)
    except subprocess.TimeoutExpired:
        return

kinds = {
    "event": lambda: threading.Event().wait(1),
    "queue": nothing_comes,
    "lock": lambda: held(threading.Lock()),
    "reentrant lock": lambda: held(threading.RLock()),
    "program": slow,
    "sleep": lambda: time.sleep(1),
}
found = {}
for by in (15552000, -15552000):
    for name, wait in kinds.items():
        setting = threading.Timer(0.2, lambda: time.clock_settime(time.CLOCK_REALTIME, time.time() + by))
        waiting = threading.Thread(target=wait, daemon=True)
        begun = time.monotonic()
        setting.start()
        waiting.start()
        while waiting.is_alive() and time.monotonic() - begun < 20:
            time.sleep(0.02)
        setting.join()
        found[f"{name} {by}"] = time.monotonic() - begun
print(json.dumps(found))
"""


def test_a_wait_of_the_frozen_interpreter_is_as_long_as_it_says_when_the_clock_is_set_meanwhile(tmp_path: Path) -> None:
    """A gateway that is asked may tell the time, and the clock is set then: the request keeps its limit."""
    (tmp_path / "waits.py").write_text(WAITS)
    program = interpreter.interpreter().path
    result = run_uml(Path("/"), f"{program} -I {tmp_path}/waits.py", timeout=400).check()
    waited = json.loads(result.stdout)
    assert len(waited) == 12
    assert {kind: seconds for kind, seconds in waited.items() if not 0.9 < seconds < 15} == {}

"""A crowd of agents: `python -m tests.bench.crowd AGENTS DIRECTORY KMS-COMMAND...`, in a network without a route.

Each is a process of its own that does what the agent does for its key, by the first volume of the configuration in
DIRECTORY. When all of them wait for the network, the stand-in is started, and the network comes up. Prints when that
was, and how many requests each one sent.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import keys, log
from cryptpilot_boot.config import load
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.config import Encrypt

BUDGET = 500.0  # seconds
_NUMBER = struct.Struct("i")
_AT_THE_GATE = 0
_FAILED = -1


def main() -> None:
    """Gather the crowd, open the gate, and wait until all are through."""
    crowd, directory, *kms = sys.argv[1:]
    section = load(Path(directory)).volumes[0].encrypt
    keys.prepare(section)  # imports what each of them needs, once
    source, sink = os.pipe()
    for _ in range(int(crowd)):
        if os.fork() == 0:
            _ask(section, sink)
    os.close(sink)
    _numbers(source, int(crowd))
    address = kms[kms.index("--listen") + 1].partition(":")[0]
    _ip("address", "add", f"{address}/32", "dev", "lo")
    with subprocess.Popen(kms, stdout=subprocess.PIPE) as server:
        try:
            if server.stdout:
                server.stdout.readline()  # it is ready
            gate = time.time()
            _ip("route", "add", "203.0.113.0/24", "dev", "lo")
            requests = _numbers(source, int(crowd))
        finally:
            server.terminate()
    print(json.dumps({"gate": gate, "requests": requests}))


def _ask(section: Encrypt, sink: int) -> None:
    """Be an agent: say when there is nothing to do but wait for the network, and in the end how often was asked."""
    asked = 1

    def listen(event: log.Event) -> None:
        nonlocal asked
        if "there is no route yet" not in str(event.facts.get("waiting_for", "there is no route yet")):
            asked += 1
        elif not told:
            told.append(os.write(sink, _NUMBER.pack(_AT_THE_GATE)))

    told: list[int] = []
    try:
        with log.subscribed(listen):
            keys.ask_until(keys.prepare(section), Deadline(BUDGET), "v").wipe()
    except CryptpilotError as error:
        print(error.what, file=sys.stderr)
        asked = _FAILED
    os.write(sink, _NUMBER.pack(asked))
    os._exit(0)


def _numbers(source: int, count: int) -> list[int]:
    """Read a number from each of the crowd."""
    found: list[int] = []
    while len(found) < count:
        data = os.read(source, _NUMBER.size)
        if not data:
            raise SystemExit("the crowd has gone")
        found.append(_NUMBER.unpack(data)[0])
    return found


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    main()

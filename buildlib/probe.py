"""Frozen beside the agent, with the very same modules: runs in the bundle what `freeze` has to see running.

Takes a JSON object on standard input, {"modules": [...], "configuration": DIRECTORY, "timeouts": {VOLUME: SECONDS},
"metadata": ADDRESS, "authorities": FILE}: imports the modules, then asks for the passphrase of each volume in the
configuration, with the metadata service at that address, and that file for the system's CAs. Prints a JSON object: by
volume the passphrase's SHA-256 or the error, and the processor time the imports took.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from pathlib import Path

from cryptpilot_boot import config, keys
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.providers import metadata
from cryptpilot_boot.system import certificates

_PATIENCE = 30.0  # seconds, for a build machine that has much else to do


def _ask(encrypt: config.Encrypt, timeout: float) -> dict[str, str]:
    try:
        with keys.prepare(encrypt)(timeout) as passphrase:
            return {"sha256": hashlib.sha256(passphrase.reveal()).hexdigest()}
    except CryptpilotError as error:
        return {"error": error.what}


def _main() -> None:
    task = json.load(sys.stdin)
    for name in task["modules"]:
        importlib.import_module(name)
    imported = time.process_time()
    metadata.ADDRESS = task["metadata"]
    certificates.PLACES = (Path(task["authorities"]),)
    volumes = config.load(Path(task["configuration"])).volumes
    timeouts = task["timeouts"]
    results = {volume.volume: _ask(volume.encrypt, timeouts.get(volume.volume, _PATIENCE)) for volume in volumes}
    json.dump({"import_seconds": round(imported, 3), "volumes": results}, sys.stdout)


_main()

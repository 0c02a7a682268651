"""A stand-in for the one-shot confidential data hub, with its command line, its output and its faults.

Source: confidential-containers/guest-components, confidential-data-hub: README.md, hub/src/bin/cdh-oneshot.rs (command
line, base64 on standard output, a panic with exit status 101), hub/src/config.rs (configuration: the format is told by
the suffix, [kbc] with name and url is needed); attestation-agent/kbs_protocol (what a failure looks like).

Run as `confidential-data-hub -c FILE get-resource --resource-uri URI`, it reads beside itself `resources.json` (base64
by URI) and `behaviour`, and leaves there `seen.json`: what it was given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import tomli

HERE = Path(__file__).parent
PANIC = 101
_HANDSHAKE = 'KbsClient { source: Kbs("RCAR handshake failed: Unable to get token. RCAR handshake retried 5 times.'
FAULTS = {
    "refused": f'{_HANDSHAKE} ... KBS attest unauthorized, Error Info: ErrorInformation {{ error_type: "https://'
    'github.com/confidential-containers/kbs/errors/AttestationError", detail: "Attestation error: Zm9yYmlkZGVu" }")',
    "denied": 'GetResource { source: Kbs("KBS Server Internal Failed, Response: ErrorInformation { error_type:'
    ' "https://github.com/confidential-containers/kbs/errors/PolicyDeny", detail: "Access denied by policy" }")',
    "absent": 'GetResource { source: Kbs("KBS resource not found: KBS resource Not Found (Error 404): ...")',
    "version": f'{_HANDSHAKE} KBS request unauthorized, ErrorInformation {{ error_type: "ProtocolVersion", .. }}")',
    "no-evidence": f'{_HANDSHAKE} get composite evidence failed: open /dev/tdx_guest: No such file or directory")',
    "no-agent": 'GetResource { source: Kbs("Attestation Agent token provider error: connect: No such file") }',
    "certificate": f'{_HANDSHAKE} error sending request for url: invalid peer certificate: UnknownIssuer")',
    "no-name": f'{_HANDSHAKE} error sending request for url: dns error: failed to lookup address information")',
    "no-answer": f'{_HANDSHAKE} error sending request for url (https://kbs.example/kbs/v0/auth)")',
    "unwell": f'{_HANDSHAKE} KBS Server Internal Failed, Response: \\"...\\"")',
    "unreadable": 'GetResource { source: Kbs("deserialize http response failed: expected value at line 1") }',
    "unauthorized": 'GetResource { source: Kbs("request unautorized") }',
    "unknown": "\x1b[2J something else Zm9yYmlkZGVu",
}
"""What it says of a failure."""


def main() -> None:
    """Do as one is told by `behaviour`."""
    behaviour = (HERE / "behaviour").read_text() if (HERE / "behaviour").exists() else "ok"
    arguments = parse(behaviour)
    config = read_config(Path(arguments.config))
    (HERE / "seen.json").write_text(
        json.dumps(
            {
                "config": config,
                "uri": arguments.resource_uri,
                "mode": os.stat(arguments.config).st_mode & 0o777,  # noqa: PTH116
                "path": arguments.config,
                "env": sorted(os.environ),
            }
        )
    )
    resources: dict[str, str] = json.loads((HERE / "resources.json").read_text())
    if behaviour in FAULTS:
        panic(f"failed to get resource, {FAULTS[behaviour]}")
    if arguments.resource_uri not in resources:
        panic(f"failed to get resource, {FAULTS['absent']}")
    text = resources[arguments.resource_uri]
    answer(behaviour, text)


def answer(behaviour: str, text: str) -> None:
    """Write the resource, or what a fault has in its place."""
    if behaviour == "slow":
        time.sleep(60)
    if behaviour == "killed":
        os.kill(os.getpid(), 9)
    if behaviour == "endless":
        while True:
            sys.stdout.write("A" * 65536)
    written = {
        "not-base64": "correct horse, battery staple!\n",
        "two-lines": f"{text}\n{text}\n",
        "log-line": f"[2026-11-29T08:00:00Z INFO] start\n{text}\n",
        "empty": "\n",
        "nothing": "",
        "garbage": "\x00\xff\n",
        "too-long": "QUFB" * 400_000 + "\n",
        "another-key": "b3RoZXI=\n",
        "no-line-end": text,
    }
    sys.stdout.write(written.get(behaviour, text + "\n"))


def parse(behaviour: str) -> argparse.Namespace:
    """Read the command line as clap does for it; the daemon's, under the same name, has no such command."""
    parser = argparse.ArgumentParser(prog="cdh_oneshot", allow_abbrev=False)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("-r", "--retry", type=int, default=3)
    if behaviour == "daemon":
        sys.stderr.write("error: unexpected argument 'get-resource' found\n\nUsage: confidential-data-hub [OPTIONS]\n")
        sys.exit(2)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("get-resource").add_argument("-r", "--resource-uri", required=True)
    return parser.parse_args()


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration, which must say which KBS it is."""
    if path.suffix != ".toml":
        panic(f'failed to initialize cdh config: "{path}" is not of a registered file format')
    config = tomli.loads(path.read_text())
    if set(config["kbc"]) - {"kbs_cert"} != {"name", "url"}:
        panic("failed to initialize cdh config: invalid config")
    return config


def panic(text: str) -> NoReturn:
    """End as a Rust program does that has given up."""
    sys.stderr.write(f"thread 'main' panicked at confidential-data-hub/hub/src/bin/cdh-oneshot.rs:169:25:\n{text}\n")
    sys.stderr.write("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n")
    sys.exit(PANIC)


if __name__ == "__main__":
    main()

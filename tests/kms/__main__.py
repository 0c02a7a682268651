"""Run the stand-in gateway: `python -m tests.kms --dir DIR --listen 127.0.0.1:0 --secret NAME=VALUE`.

DIR gets what a user has of an instance (ca.pem, client_key.json, client_key_password), and requests.jsonl
with a line for each request. DIR/behaviour chooses how requests are treated (see behaviours.Switch). A value that is
in a file may change at any time: to rotate a secret, write its --previous file and then its --secret file.

`--shared` and `--metadata` also run a region's shared gateway, with the same secrets, CA and behaviours, and the
metadata service of an instance, whose role may read them, at the instance's own gateway too. DIR/metadata.jsonl has a
line for each request to the metadata service, and DIR/metadata_behaviour a word of metadata.BEHAVIOURS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.kms.behaviours import BEHAVIOURS, Switch
from tests.kms.directory import open_directory
from tests.kms.metadata import MetadataRequest, MetadataServer
from tests.kms.pki import make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.server import KmsServer, Request
from tests.kms.shared import SharedGateway


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # threads inherit it, so that sigwait gets the signal
    arguments = parse_arguments()
    pki = open_directory(arguments.dir)
    secrets = secrets_from(arguments.secret, arguments.previous)
    # within the life of the CA's own, which begins a day before it was made
    end = datetime.now(timezone.utc) - timedelta(hours=1) if arguments.expired else None
    certificate = make_server_certificate(pki.authority, names=arguments.name, addresses=arguments.ip, not_after=end)
    switch = Switch(arguments.dir / "behaviour")
    on_request = append_to(arguments.dir / "requests.jsonl")
    with contextlib.ExitStack() as servers:
        by_role = None
        if arguments.metadata:
            metadata = MetadataServer(
                role=arguments.role,
                region=arguments.region,
                hardened=not arguments.normal_mode,
                address=arguments.metadata,
                file=arguments.dir / "metadata_behaviour",
                on_request=append_to(arguments.dir / "metadata.jsonl"),
            )
            servers.enter_context(metadata)
            if arguments.shared:
                gateway = SharedGateway(
                    {},
                    metadata.grants,
                    certificate,
                    address=arguments.shared,
                    switch=switch,
                    on_request=on_request,
                    look_up=secrets,
                    others={name: Secret(value.read() or "") for name, value in arguments.other_secret},
                    region=arguments.region,
                )
                by_role = servers.enter_context(gateway).answer
        server = KmsServer(
            pki,
            {},
            certificate=certificate,
            address=arguments.listen,
            switch=switch,
            on_request=on_request,
            look_up=secrets,
            by_role=by_role,
        )
        servers.enter_context(server)
        announce(server.endpoint, arguments.ready_file)
        signal.sigwait(signals)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kms",
        description="A stand-in for the gateway of a KMS instance, for tests.",
        epilog=f"Behaviours, for DIR/behaviour: {', '.join(sorted(BEHAVIOURS))}.",
    )
    parser.add_argument("--dir", type=Path, required=True, help="for keys, behaviour and requests.jsonl")
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT", help="port 0: any")
    parser.add_argument("--name", action="append", default=[], help="DNS name in the server certificate")
    parser.add_argument("--ip", action="append", default=[], help="IP address in the server certificate")
    parser.add_argument("--expired", action="store_true", help="with a server certificate that ran out an hour ago")
    parser.add_argument("--secret", type=secret, action="append", default=[], metavar="NAME=VALUE|NAME=@FILE")
    parser.add_argument(
        "--previous",
        type=secret,
        action="append",
        default=[],
        metavar="NAME=VALUE|NAME=@FILE",
        help="what a secret was before its last rotation (ACSPrevious); a FILE that is not there: it had none",
    )
    parser.add_argument("--shared", type=address, metavar="HOST:PORT", help="a shared gateway too; needs --metadata")
    parser.add_argument("--metadata", type=address, metavar="HOST:PORT", help="a metadata service too")
    parser.add_argument(
        "--other-secret",
        type=secret,
        action="append",
        default=[],
        metavar="NAME=VALUE|NAME=@FILE",
        help="a secret of another account, which the metadata service's behaviour another-account is of",
    )
    parser.add_argument("--role", default="disk-reader", help="the instance's RAM role (default: %(default)s)")
    parser.add_argument("--region", default="cn-hangzhou", help="the instance's region (default: %(default)s)")
    parser.add_argument("--normal-mode", action="store_true", help="answer metadata requests without a token too")
    parser.add_argument("--ready-file", type=Path, help="gets HOST:PORT once requests are answered")
    arguments = parser.parse_args()
    if not arguments.name and not arguments.ip:
        parser.error("the server certificate needs a --name or an --ip")
    if arguments.shared and not arguments.metadata:
        parser.error("--shared needs --metadata, which gives out the credentials")
    if not {name for name, _ in arguments.previous} <= {name for name, _ in arguments.secret}:
        parser.error("--previous needs a --secret of the same name")
    return arguments


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def secret(text: str) -> tuple[str, Value]:
    """Read NAME=VALUE or NAME=@FILE; of a file, every byte counts, as it does in the console."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError("not of the form NAME=VALUE or NAME=@FILE")
    return name, Value(value)


class Value:
    """A secret's value, or of a file what it holds now; it is opened only when it has changed."""

    def __init__(self, text: str) -> None:
        self._file = Path(text[1:]) if text.startswith("@") else None
        self._text: str | None = None if self._file else text
        self._version: tuple[int, ...] = ()

    def read(self) -> str | None:
        """Return the value, None while there is no such file."""
        if self._file is None:
            return self._text
        try:
            stat = self._file.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if version != self._version:
                self._text, self._version = self._file.read_text(), version
        except FileNotFoundError:
            self._text, self._version = None, ()
        return self._text


def secrets_from(
    current: list[tuple[str, Value]], previous: list[tuple[str, Value]]
) -> Callable[[], dict[str, Secret]]:
    """Return what joins the two values that each secret has when it is called."""
    before = dict(previous)

    def look_up() -> dict[str, Secret]:
        found = {}
        for name, value in current:
            text = value.read()
            if text is not None:
                found[name] = Secret(current=text, previous=before[name].read() if name in before else None)
        return found

    return look_up


def append_to(path: Path) -> Callable[[Request | MetadataRequest], None]:
    """Return what writes a record to the end of a file, as one line."""
    lock = threading.Lock()

    def append(request: Request | MetadataRequest) -> None:
        with lock, path.open("a") as file:
            file.write(json.dumps(asdict(request)) + "\n")

    return append


def announce(endpoint: str, ready_file: Path | None) -> None:
    """Say that the server listens, and where; the file appears with its content."""
    if ready_file is None:
        print(f"ready {endpoint}", flush=True)
        return
    unfinished = ready_file.with_name(ready_file.name + ".new")
    unfinished.write_text(endpoint + "\n")
    unfinished.replace(ready_file)


if __name__ == "__main__":
    main()

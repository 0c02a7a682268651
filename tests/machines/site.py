"""What the user of a KMS instance has, and the stand-in that answers for the instance."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.run import LabError, end, is_running, run, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.net import Namespace

CHECKOUT = Path(__file__).resolve().parents[2]
INSTANCE = "kst-bjj67d004a85ykq80test"
GATEWAY = f"{INSTANCE}.cryptoservice.kms.aliyuncs.com"
REGION = "cn-hangzhou"
SHARED_GATEWAY = f"kms-vpc.{REGION}.aliyuncs.com"
METADATA = "100.100.100.200"
"""Where the metadata service is, for every instance: a network needs this address."""
SECRET_NAME = "confidential_cloud_disk_passphrase"
BEHAVIOUR = "behaviour"
PREVIOUS = "previous"
KMS_FILES = "/run/kms"
"""Where a script that is run beside the KMS finds the site's directory."""
ROTATE_SECRET = f"""
cp {KMS_FILES}/secret {KMS_FILES}/{PREVIOUS}
head -c 256 /dev/urandom | base64 -w 0 > {KMS_FILES}/secret
"""
"""The shell lines that do there what `Site.rotate` does."""


@dataclass(frozen=True)
class Site:
    """What the user of a KMS instance has: a secret in it, a client key, the instance's CA.

    directory: where the stand-in keeps them, and its record of requests. secret_names: the secret under another name
    is another secret, though of the same value. previous: what the secret was before it was rotated, "" if it was not.
    """

    directory: Path
    secret: str
    secret_names: tuple[str, ...] = (SECRET_NAME,)
    previous: str = ""

    @property
    def client_key(self) -> dict[str, str]:
        """Return the client key file's content."""
        key: dict[str, str] = json.loads((self.directory / "client_key.json").read_text())
        return key

    @property
    def forbidden(self) -> dict[str, bytes]:
        """Return what must be found nowhere, by what it is; parts long enough to be no coincidence."""
        private_key = self.client_key["PrivateKeyData"]
        values = {"the secret": self.secret, "the previous secret": self.previous}
        return {
            **{what: value[:40].encode() for what, value in values.items() if value},
            **{f"{what}, decoded": base64.b64decode(value)[:24] for what, value in values.items() if value},
            **{
                f"{what}, decoded, in hexadecimal": base64.b64decode(value)[:24].hex().encode()
                for what, value in values.items()
                if value
            },
            "the client key's password": (self.directory / "client_key_password").read_text().strip().encode(),
            "the client key's PKCS#12": private_key[:40].encode(),
            "the middle of the client key's PKCS#12": private_key[800:840].encode(),
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return the stand-in's record of the requests it served."""
        record = self.directory / "requests.jsonl"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    def metadata_requests(self) -> list[dict[str, Any]]:
        """Return the record of the requests to the metadata service."""
        return [json.loads(line) for line in (self.directory / "metadata.jsonl").read_text().splitlines()]

    def forget_requests(self) -> None:
        """Begin the records anew."""
        for name in ("requests.jsonl", "metadata.jsonl"):
            (self.directory / name).unlink(missing_ok=True)

    def copied(self, directory: Path) -> Site:
        """Return the same instance in a directory of its own: to rotate a secret that other tests share."""
        shutil.copytree(self.directory, directory)
        copy = replace(self, directory=directory)
        copy.behave("ok")
        copy.forget_requests()
        return copy

    def rotate(self) -> Site:
        """Give the secret a new value, at once for a stand-in that runs, and return what the user has then."""
        rotated = replace(self, secret=_random_secret(), previous=self.secret)
        # in this order: at no moment is the one that volumes have been made with gone
        (self.directory / PREVIOUS).write_text(rotated.previous)
        (self.directory / "secret").write_text(rotated.secret)
        return rotated

    def behave(self, name: str, **parameters: object) -> None:
        """Have the stand-in treat requests in a certain way from now on; "ok" is the honest one."""
        file = self.directory / BEHAVIOUR
        unfinished = file.with_name(BEHAVIOUR + ".new")
        unfinished.write_text(json.dumps({"name": name, **parameters}))
        unfinished.replace(file)


def make_site(directory: Path, secret: str = "") -> Site:
    """Make an instance with one secret, by default as the guide has it generated: 256 random bytes in base64."""
    secret = secret or _random_secret()
    directory.mkdir(parents=True)
    run([sys.executable, "-c", _MAKE_PKI, directory], env={**os.environ, "PYTHONPATH": str(CHECKOUT)})
    (directory / "secret").write_text(secret)
    return Site(directory, secret)


def _random_secret() -> str:
    return base64.b64encode(os.urandom(256)).decode()


_MAKE_PKI = "import sys, pathlib, tests.kms.directory as d; d.open_directory(pathlib.Path(sys.argv[1]))"


def kms_command(site: Site, directory: str, ready_file: str) -> list[str]:
    """Return the command line that runs the stand-in as a site's gateway; directory: where the site's is seen."""
    return [
        *(sys.executable, "-m", "tests.kms", "--dir", directory),
        *("--listen", "127.0.0.1:443", "--name", GATEWAY),
        *(argument for name in site.secret_names for argument in ("--secret", f"{name}=@{directory}/secret")),
        *(argument for name in site.secret_names for argument in ("--previous", f"{name}=@{directory}/{PREVIOUS}")),
        *("--ready-file", ready_file),
    ]


def role_command(site: Site, directory: str, ready_file: str) -> list[str]:
    """Return the command line that runs the stand-in as shared gateway and metadata service of an instance's region."""
    return [
        *(sys.executable, "-m", "tests.kms", "--dir", directory),
        *("--listen", "127.0.0.1:0", "--name", SHARED_GATEWAY, "--region", REGION),
        *("--shared", "127.0.0.1:443", "--metadata", f"{METADATA}:80"),
        *(argument for name in site.secret_names for argument in ("--secret", f"{name}=@{directory}/secret")),
        *("--ready-file", ready_file),
    ]


@contextlib.contextmanager
def running_kms(
    site: Site, network: Namespace, command: Callable[[Site, str, str], list[str]] = kms_command
) -> Iterator[None]:
    """Run the stand-in in a network, where machines find it under its real name."""
    ready = site.directory / "ready"
    ready.unlink(missing_ok=True)
    process = spawn(
        network.command(command(site, str(site.directory), str(ready))),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    try:
        _wait_for(ready, process)
        yield
    finally:
        end(process)


def _wait_for(ready: Path, process: Any) -> None:
    deadline = time.monotonic() + 30
    while not ready.exists():
        if not is_running(process) or time.monotonic() > deadline:
            raise LabError("The stand-in KMS did not start.")
        time.sleep(0.02)

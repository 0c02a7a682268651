"""Running what was frozen, against real TLS servers on this machine: a module left out shows now, not at a boot.

The servers are the stand-ins of tests/kms; they need the packages of the agent.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib import precompute
from buildlib.base import BuildError, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kms.pki import Pki

PROBE = "probe"

# What an initrd has, and nothing more: no locale, no home.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
# Answers to which the agent has something to say; the names are those of tests/kms.
_BAD_ANSWERS = ("refuse", "throttle", "hang-body", "broken-body", "not-base64")
_ROLE_BAD_ANSWERS = ("refuse", "broken-body", "not-base64")
_TOKEN_BAD_ANSWERS = ("expired", "nonsense", "html")
_DAEMON_BAD_ANSWERS = ("refused", "garbage")
_AUTHORITIES = "authorities.pem"
_TOKEN = "eyJhbGciOiJSUzI1NiJ9"  # noqa: S105 - of no identity provider
_RESOURCE = "kbs:///default/disk/key"
_TIMEOUTS = {"hang-body": 1.0}  # seconds; nothing else makes the probe wait
# What an error must not speak of: the agent explains what it knows, so these would be news.
_BROKEN = re.compile(r"\b(internal error|\w*ImportError|ModuleNotFoundError|LookupError|AttributeError|\w*TypeError)\b")
_HINT = "if it is a module that was left out, take it off EXCLUDED in buildlib/agent.spec"


def exercise(bundle: Path) -> float:
    """Run the frozen command and the probe beside it; return the processor time of all imports, in seconds.

    Raises BuildError when anything in the bundle does not work as it does unfrozen.
    """
    _require_localhost()
    secret = os.urandom(256)
    with tempfile.TemporaryDirectory() as name, _configuration(Path(name), secret) as (expected, metadata):
        task = {
            "modules": precompute.modules(),
            "configuration": name,
            "timeouts": _TIMEOUTS,
            "metadata": metadata,
            "authorities": str(Path(name, _AUTHORITIES)),
        }
        told = json.loads(run([bundle / PROBE], env=_ENVIRONMENT, stdin=json.dumps(task), hint=_HINT))
        _require(told["volumes"], expected)
        run([bundle / "cryptpilot", f"--config-dir={name}", "show", "--json"], env=_ENVIRONMENT, hint=_HINT)
        run([bundle / "cryptpilot", f"--config-dir={name}", "initrd", "plan"], env=_ENVIRONMENT, hint=_HINT)
    run([bundle / "cryptpilot", "--help"], env=_ENVIRONMENT, hint=_HINT)
    return float(told["import_seconds"])


def _require_localhost() -> None:
    """Look the name up that the agent will look up: a chroot may have no /etc/hosts."""
    try:
        socket.getaddrinfo("localhost", None, socket.AF_INET)
    except socket.gaierror:
        raise BuildError(
            "this machine has no address for localhost", "put 127.0.0.1 localhost into /etc/hosts"
        ) from None


@contextlib.contextmanager
def _configuration(directory: Path, secret: bytes) -> Iterator[tuple[dict[str, str], str]]:
    """Write a configuration whose volumes have servers of all kinds; yield what to expect of each volume.

    That is the SHA-256 of its passphrase, or "error", or "anything" for a passphrase that is made up. Beside it the
    address of the metadata service is yielded.
    """
    from tests.kbs.daemon import Daemon
    from tests.kms.metadata import MetadataServer
    from tests.kms.pki import make_authority, make_pki, make_server_certificate, old_client_key
    from tests.kms.protocol import Secret
    from tests.kms.server import KmsServer
    from tests.kms.shared import SharedGateway
    from tests.kms.sts import TokenService

    pki = make_pki()
    value = {"disk": base64.b64encode(secret).decode()}
    digest = hashlib.sha256(secret).hexdigest()
    # what encrypts it is not in every OpenSSL
    old = dataclasses.replace(pki, client_key=old_client_key())
    stranger = make_server_certificate(make_authority("a stranger"))
    with contextlib.ExitStack() as servers:
        good = servers.enter_context(KmsServer(pki, value))
        good_for_old = servers.enter_context(KmsServer(old, value))
        strange = servers.enter_context(KmsServer(pki, value, certificate=stranger))
        nobody = servers.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        endpoints = {
            "good": (good.endpoint, digest),
            "good-by-name": (f"localhost:{good.port}", digest),
            "stranger": (strange.endpoint, "error"),
            "nobody": (f"127.0.0.1:{nobody.getsockname()[1]}", "error"),
        }
        for name in _BAD_ANSWERS:
            server = servers.enter_context(KmsServer(pki, value))
            server.behave(name)
            endpoints[name] = (server.endpoint, "error")
        texts = {name: _kms_volume(name, endpoint, pki) for name, (endpoint, _) in endpoints.items()}
        endpoints["old-client-key"] = (good_for_old.endpoint, digest)
        texts["old-client-key"] = _kms_volume("old-client-key", good_for_old.endpoint, old)
        metadata = servers.enter_context(MetadataServer())
        for name in ("ok", *_ROLE_BAD_ANSWERS):
            shared = SharedGateway(
                {"disk": Secret(value["disk"])}, metadata.grants, make_server_certificate(pki.authority)
            )
            servers.enter_context(shared).behave(name)
            endpoints[f"role-{name}"] = (shared.endpoint, digest if name == "ok" else "error")
            texts[f"role-{name}"] = _role_volume(f"role-{name}", shared.endpoint, pki)
        certificate = make_server_certificate(pki.authority)
        (directory / _AUTHORITIES).write_text(pki.authority.pem)
        for name in ("ok", *_TOKEN_BAD_ANSWERS):
            sts = servers.enter_context(TokenService(certificate, {_TOKEN}))
            sts.behaviour = name
            shared = SharedGateway({"disk": Secret(value["disk"])}, sts.grants, certificate)
            servers.enter_context(shared)
            endpoints[f"oidc-{name}"] = (shared.endpoint, digest if name == "ok" else "error")
            texts[f"oidc-{name}"] = _oidc_volume(f"oidc-{name}", shared.endpoint, sts.endpoint)
        for name in ("ok", *_DAEMON_BAD_ANSWERS):
            daemon = Daemon(directory / f"{name}.sock", {_RESOURCE: secret}, name)
            servers.enter_context(daemon)
            endpoints[f"kbs-{name}"] = (str(daemon.path), digest if name == "ok" else "error")
            texts[f"kbs-{name}"] = _kbs_volume(f"kbs-{name}", daemon.path)
        texts["exec"] = _exec_volume("exec", secret)
        texts["otp"] = 'volume = "otp"\ndev = "/dev/otp"\n[encrypt.otp]\n'
        (directory / "volumes").mkdir()
        for name, text in texts.items():
            file = directory / "volumes" / f"{name}.toml"
            file.touch(0o600)
            file.write_text(text)
        others = {"otp": "anything", "exec": digest}
        yield {**others, **{name: expected for name, (_, expected) in endpoints.items()}}, metadata.endpoint


def _kms_volume(name: str, endpoint: str, pki: Pki) -> str:
    return f"""\
volume = "{name}"
dev = "/dev/{name}"
auto_open = true
[encrypt.kms]
kms_instance_id = "kst-0"
secret_name = "disk"
endpoint = "{endpoint}"
client_key = '''{pki.client_key.text}'''
client_key_password = '''{pki.client_key.password}'''
kms_cert_pem = '''{pki.authority.pem}'''
"""


def _role_volume(name: str, endpoint: str, pki: Pki) -> str:
    return f"""\
volume = "{name}"
dev = "/dev/{name}"
[encrypt.kms]
auth_mode = "ecs_ram_role"
secret_name = "disk"
endpoint = "{endpoint}"
kms_cert_pem = '''{pki.authority.pem}'''
"""


def _oidc_volume(name: str, endpoint: str, sts_endpoint: str) -> str:
    from tests.kms.sts import PROVIDER, ROLE

    return f"""\
volume = "{name}"
dev = "/dev/{name}"
[encrypt.oidc]
command = "echo"
args = ["{_TOKEN}"]
key_id = "disk"
[encrypt.oidc.kms]
type = "aliyun"
oidc_provider_arn = "{PROVIDER}"
role_arn = "{ROLE}"
region_id = "cn-hangzhou"
endpoint = "{endpoint}"
sts_endpoint = "{sts_endpoint}"
"""


def _kbs_volume(name: str, path: Path) -> str:
    return f"""\
volume = "{name}"
dev = "/dev/{name}"
[encrypt.kbs]
cdh_type = "daemon"
key_uri = "{_RESOURCE}"
cdh_socket = "unix://{path}"
"""


def _exec_volume(name: str, secret: bytes) -> str:
    octal = "".join(f"\\\\{byte:03o}" for byte in secret)
    return f'volume = "{name}"\ndev = "/dev/{name}"\n[encrypt.exec]\ncommand = "printf"\nargs = ["{octal}"]\n'


def _require(results: dict[str, dict[str, str]], expected: dict[str, str]) -> None:
    for volume, wanted in expected.items():
        result = results[volume]
        error = result.get("error", "")
        got = "error" if error else result["sha256"]
        if _BROKEN.search(error) or (got != wanted and (wanted, bool(error)) != ("anything", False)):
            raise BuildError(f"the frozen agent does not work: asked for volume {volume}, it says {result}", _HINT)

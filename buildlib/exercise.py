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

    from tests.kms.metadata import MetadataServer
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

    Beside it the address of the metadata service is yielded.
    """
    from tests.kms.metadata import MetadataServer
    from tests.kms.pki import make_pki

    pki = make_pki()
    (directory / _AUTHORITIES).write_text(pki.authority.pem)
    with contextlib.ExitStack() as servers:
        metadata = servers.enter_context(MetadataServer())
        volumes = {
            **_kms_volumes(servers, pki, secret),
            **_role_volumes(servers, pki, secret, metadata),
            **_oidc_volumes(servers, pki, secret),
            **_kbs_volumes(servers, directory, secret),
            "exec": (_exec_volume("exec", secret), _sha256(secret)),
            "otp": ('volume = "otp"\ndev = "/dev/otp"\n[encrypt.otp]\n', "anything"),
        }
        (directory / "volumes").mkdir()
        for name, (text, _) in volumes.items():
            file = directory / "volumes" / f"{name}.toml"
            file.touch(0o600)
            file.write_text(text)
        yield {name: expected for name, (_, expected) in volumes.items()}, metadata.endpoint


_Volumes = dict[str, tuple[str, str]]
"""By name: the text of its file, and what to expect.

That is the SHA-256 of its passphrase, or "error", or "anything" for a passphrase that is made up.
"""


def _kms_volumes(servers: contextlib.ExitStack, pki: Pki, secret: bytes) -> _Volumes:
    """Start gateways of instances, and return the volumes that ask them."""
    from tests.kms.pki import make_authority, make_server_certificate, old_client_key
    from tests.kms.server import KmsServer

    value = {"disk": _base64(secret)}
    # what encrypts it is not in every OpenSSL
    old = dataclasses.replace(pki, client_key=old_client_key())
    stranger = make_server_certificate(make_authority("a stranger"))
    good = servers.enter_context(KmsServer(pki, value))
    good_for_old = servers.enter_context(KmsServer(old, value))
    strange = servers.enter_context(KmsServer(pki, value, certificate=stranger))
    closed = servers.enter_context(socket.socket())
    closed.bind(("127.0.0.1", 0))  # and does not listen
    endpoints = {
        "good": (good.endpoint, _sha256(secret)),
        "good-by-name": (f"localhost:{good.port}", _sha256(secret)),
        "stranger": (strange.endpoint, "error"),
        "closed": (f"127.0.0.1:{closed.getsockname()[1]}", "error"),
    }
    for name in _BAD_ANSWERS:
        server = servers.enter_context(KmsServer(pki, value))
        server.behave(name)
        endpoints[name] = (server.endpoint, "error")
    volumes = {name: (_kms_volume(name, place, pki), expected) for name, (place, expected) in endpoints.items()}
    return {**volumes, "old-client-key": (_kms_volume("old-client-key", good_for_old.endpoint, old), _sha256(secret))}


def _role_volumes(servers: contextlib.ExitStack, pki: Pki, secret: bytes, metadata: MetadataServer) -> _Volumes:
    """Start gateways of a region, and return the volumes that ask them with the credentials of the machine's role."""
    from tests.kms.pki import make_server_certificate
    from tests.kms.protocol import Secret
    from tests.kms.shared import SharedGateway

    volumes = {}
    for behaviour in ("ok", *_ROLE_BAD_ANSWERS):
        shared = SharedGateway(
            {"disk": Secret(_base64(secret))}, metadata.grants, make_server_certificate(pki.authority)
        )
        servers.enter_context(shared).behave(behaviour)
        name = f"role-{behaviour}"
        volumes[name] = (_role_volume(name, shared.endpoint, pki), _expected(behaviour, secret))
    return volumes


def _oidc_volumes(servers: contextlib.ExitStack, pki: Pki, secret: bytes) -> _Volumes:
    """Start token services with their gateways, and return the volumes that ask them."""
    from tests.kms.pki import make_server_certificate
    from tests.kms.protocol import Secret
    from tests.kms.shared import SharedGateway
    from tests.kms.sts import TokenService

    certificate = make_server_certificate(pki.authority)
    volumes = {}
    for behaviour in ("ok", *_TOKEN_BAD_ANSWERS):
        sts = servers.enter_context(TokenService(certificate, {_TOKEN}))
        sts.behaviour = behaviour
        shared = servers.enter_context(SharedGateway({"disk": Secret(_base64(secret))}, sts.grants, certificate))
        name = f"oidc-{behaviour}"
        volumes[name] = (_oidc_volume(name, shared.endpoint, sts.endpoint), _expected(behaviour, secret))
    return volumes


def _kbs_volumes(servers: contextlib.ExitStack, directory: Path, secret: bytes) -> _Volumes:
    """Start confidential data hubs, and return the volumes that ask them."""
    from tests.kbs.daemon import Daemon

    volumes = {}
    for behaviour in ("ok", *_DAEMON_BAD_ANSWERS):
        daemon = servers.enter_context(Daemon(directory / f"{behaviour}.sock", {_RESOURCE: secret}, behaviour))
        name = f"kbs-{behaviour}"
        volumes[name] = (_kbs_volume(name, daemon.path), _expected(behaviour, secret))
    return volumes


def _expected(behaviour: str, secret: bytes) -> str:
    return _sha256(secret) if behaviour == "ok" else "error"


def _sha256(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _base64(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


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

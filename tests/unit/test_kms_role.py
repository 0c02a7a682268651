"""The role provider against the stand-ins: the secret arrives, and each failure has its sentence and its fate.

The stand-ins check what the real services check (tests/unit/test_kms_role_sdk.py holds them to that with the unmodified
SDK); here the product's own client talks to them.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import logging
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.config import KmsRole
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import kms, kms_openapi, limit, metadata
from cryptpilot_boot.system import certificates
from cryptpilot_boot.system.wait import Deadline
from tests.kms import acs3, errors
from tests.kms.behaviours import Reply
from tests.kms.metadata import BEHAVIOURS, MetadataServer
from tests.kms.pki import Pki, make_authority, make_client_key, make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.server import KmsServer
from tests.kms.shared import SharedGateway
from tests.lab.net import namespace
from tests.unit import standin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kms.pki import Authority

SECRET = bytes(range(256))
VALUE = base64.b64encode(SECRET).decode()
ENDPOINT = "kms-vpc.cn-hangzhou.aliyuncs.com"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    """The metadata service of an instance that refuses whoever has no token."""
    with MetadataServer() as server:
        monkeypatch.setattr(metadata, "ADDRESS", server.endpoint)
        yield server


@pytest.fixture
def gateway(service: MetadataServer, authority: Authority) -> Iterator[SharedGateway]:
    secrets = {"disk": Secret(VALUE, previous=base64.b64encode(b"old" * 20).decode())}
    with SharedGateway(secrets, service.grants, make_server_certificate(authority)) as server:
        yield server


@pytest.fixture
def role(authority: Authority, gateway: SharedGateway) -> KmsRole:
    """An `[encrypt.kms]` section that is right."""
    return KmsRole("disk", endpoint=gateway.endpoint, kms_cert_pem=authority.pem)


def failure(role: KmsRole, timeout: float = 5) -> KeyFetchError:
    """Ask once, and return what is said when it fails."""
    with pytest.raises(KeyFetchError) as caught:
        keys.prepare(role)(timeout)
    return caught.value


def asked(service: MetadataServer) -> list[str]:
    """Return the last part of what the metadata service was asked for, in order."""
    return [request.path.rpartition("/")[2] or "role" for request in service.requests]


def test_the_secret_is_fetched_and_decoded(role: KmsRole, gateway: SharedGateway, service: MetadataServer) -> None:
    with keys.prepare(role)(5) as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
        assert passphrase.strong
    assert [(one.api, one.secret, one.stage, one.outcome) for one in gateway.requests] == [
        ("GetSecretValue", "disk", "ACSCurrent", "ok")
    ]
    # a token before all else, and with all else
    assert asked(service) == ["token", "role", "disk-reader"]
    assert [request.token for request in service.requests] == [False, True, True]


def test_the_instances_own_gateway_is_asked_with_the_role_where_its_ca_is_known(
    service: MetadataServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its own wire an instance's gateway takes client keys; with a role it takes that of the shared one."""
    pki = Pki(authority=authority, client_key=make_client_key())
    certificate = make_server_certificate(authority)
    with (
        SharedGateway({"disk": Secret(VALUE)}, service.grants, certificate) as shared,
        KmsServer(pki, {}, certificate=certificate, by_role=shared.answer) as instance,
    ):
        monkeypatch.setattr(kms, "instance_gateway", lambda name: instance.endpoint if name == "kst-1" else "")
        own = KmsRole("disk", kms_cert_pem=authority.pem, kms_instance_id="kst-1")
        with keys.prepare(own)(5) as passphrase:
            assert bytes(passphrase.reveal()) == SECRET
        answered = [(one.api, one.host, one.outcome) for one in shared.requests]
        assert answered == [("GetSecretValue", instance.endpoint, "ok")]
        # the host is known: the region is not asked for
        assert asked(service) == ["token", "role", "disk-reader"]
        assert keys.describe(own) == {
            "provider": 'KMS instance kst-1 with the instance\'s RAM role, secret "disk"',
            "endpoint": instance.endpoint,
        }
        # the CA is the instance's, and nothing else is trusted in its place
        refused = failure(dataclasses.replace(own, kms_cert_pem=make_authority().pem))
        assert "is refused: unable to get local issuer certificate" in refused.what
        assert refused.hint.startswith("kms_cert_pem must be the CA chain of KMS instance kst-1")
        absent = failure(dataclasses.replace(own, secret_name="absent"))
        assert absent.what.startswith('there is no secret "absent"')


def test_without_its_ca_an_instance_is_not_asked_but_the_regions_shared_gateway(service: MetadataServer) -> None:
    named = KmsRole("disk", kms_instance_id="kst-1", region_id="cn-nowhere-1")
    assert keys.describe(named)["endpoint"] == "kms-vpc.cn-nowhere-1.aliyuncs.com:443"
    assert keys.describe(named)["provider"].startswith("KMS with the instance's RAM role")
    assert service.requests == []


def test_an_older_version_of_the_secret_can_be_had(role: KmsRole) -> None:
    with keys.prepare(dataclasses.replace(role, stage="ACSPrevious"))(5) as passphrase:
        assert bytes(passphrase.reveal()) == b"old" * 20


def test_a_role_that_is_named_is_not_looked_for(role: KmsRole, service: MetadataServer) -> None:
    keys.prepare(dataclasses.replace(role, ecs_ram_role_name="disk-reader"))(5).wipe()
    assert asked(service) == ["token", "disk-reader"]


def test_each_try_has_credentials_of_its_own(role: KmsRole, gateway: SharedGateway, service: MetadataServer) -> None:
    gateway.behave("unavailable", times=2)
    service.behaviour = "ok"
    with keys.ask_until(keys.prepare(role), Deadline(20), "v") as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
    assert len(gateway.requests) == len(service.grants) == 3


def test_no_thread_is_left_but_the_one_that_asks(role: KmsRole, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[threading.Thread] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        # the stand-ins have threads for their connections
        if threading.current_thread().name in (threading.main_thread().name, limit.THREAD):
            made.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    keys.prepare(role)(5).wipe()
    assert [thread.name for thread in made] == [limit.THREAD]
    made[0].join(5)
    assert not made[0].is_alive()


def test_no_proxy_stands_before_the_metadata_service(
    role: KmsRole, service: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    keys.prepare(role)(5).wipe()
    assert asked(service)


# The metadata service


@pytest.mark.parametrize(
    ("behaviour", "said", "retryable"),
    [
        ("no-role", "no RAM role is attached to this instance", False),
        ("failed", "has no credentials of the RAM role: Failed", True),
        ("expired", "does not accept the role's temporary credentials (KMS says InvalidSecurityToken.Expired", True),
        ("expired-at-kms", "KMS says InvalidSecurityToken.Expired", True),
        ("no-answer", "the instance's metadata service: no answer from 127.0.0.1:", True),
        ("nonsense", "gave an invalid answer when it was asked for the RAM role", True),
        ("off", "answers HTTP 403 when asked for a token", False),
        ("unavailable", "answers HTTP 503 when asked for a token", True),
        ("another-account", 'there is no secret "disk" (KMS says Forbidden.ResourceNotFound)', False),
    ],
)
def test_trouble_with_the_metadata_service_is_told_and_judged(
    role: KmsRole, service: MetadataServer, behaviour: str, said: str, *, retryable: bool
) -> None:
    service.behaviour = behaviour
    error = failure(role, timeout=1)
    assert said in error.what
    assert (error.retryable, error.unreachable) == (retryable, False)
    assert error.hint


def test_every_trouble_of_the_metadata_service_is_tried() -> None:
    (marks,) = (
        mark
        for mark in test_trouble_with_the_metadata_service_is_told_and_judged.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    )
    assert {row[0] for row in marks.args[1]} == set(BEHAVIOURS) - {"ok"}


def test_a_role_that_is_not_attached_is_named(role: KmsRole) -> None:
    error = failure(dataclasses.replace(role, ecs_ram_role_name="other"))
    assert error.what == "the RAM role other is not attached to this instance"
    assert "ecs_ram_role_name" in error.hint
    assert not error.retryable


@pytest.mark.parametrize("region", ["evil.example/", "a" * 60, "", "<html>", "cn hangzhou"])
def test_a_region_from_the_metadata_service_is_no_way_to_another_host(
    role: KmsRole, service: MetadataServer, gateway: SharedGateway, region: str
) -> None:
    service.region = region
    error = failure(dataclasses.replace(role, endpoint=None))
    assert "gave an invalid answer when it was asked for the region" in error.what
    assert "region_id" in error.hint
    assert gateway.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"AccessKeyId": None},
        {"AccessKeySecret": 5},
        {"SecurityToken": ""},
        {"SecurityToken": "a\r\nb"},
        {"AccessKeyId": "\u00e4"},
        {"Code": None},
    ],
)
def test_credentials_that_make_no_sense_are_not_used(
    role: KmsRole,
    service: MetadataServer,
    gateway: SharedGateway,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    give = service._credentials
    monkeypatch.setattr(service, "_credentials", lambda: {**give(), **changes})
    error = failure(role)
    assert "credentials of the RAM role" in error.what
    assert "disk-reader" not in error.what  # which is the host's word here
    assert error.retryable
    assert gateway.requests == []


def test_nobody_at_the_metadata_services_address(role: KmsRole, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(metadata, "ADDRESS", address)
        error = failure(role)
    assert "connection refused" in error.what
    assert "ECS instance" in error.hint
    assert error.retryable
    assert not error.unreachable


ASK = """
import json, sys
from cryptpilot_boot import keys
from cryptpilot_boot.config import KmsRole
from cryptpilot_boot.providers import kms
from cryptpilot_boot.errors import KeyFetchError
try:
    with keys.prepare(KmsRole(**json.load(sys.stdin)))(5) as passphrase:
        print(len(passphrase), "bytes")
except KeyFetchError as error:
    print(f"{error.what}; retryable {error.retryable}; unreachable {error.unreachable}")
print(sorted(name for name in sys.modules if name.startswith("apscheduler") or name == "openapi.client"))
"""


def ask_elsewhere(argv: list[str], role: KmsRole) -> list[str]:
    """Run ASK in a process of its own and return all it said."""
    done = subprocess.run(
        [*argv, sys.executable, "-c", ASK],
        input=json.dumps(dataclasses.asdict(role)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@pytest.mark.root
def test_no_network_at_all_may_be_a_matter_of_time(role: KmsRole) -> None:
    """And of the SDK nothing is there that could make a thread, nor the other gateway's client."""
    assert ask_elsewhere(["unshare", "--net"], role) == [
        "the instance's metadata service: no network to reach 100.100.100.200: Network is unreachable"
        + "; retryable True; unreachable True",
        "[]",
    ]


@pytest.mark.root
def test_role_and_region_are_found_at_the_services_own_addresses(authority: Authority, tmp_path: Path) -> None:
    """Nothing but the secret's name is configured, and the CA."""
    with namespace(names={ENDPOINT: "127.0.0.1"}, addresses=[f"{metadata.ADDRESS}/32"]) as network:
        within = network.command([])
        arguments = [
            *("--listen", "127.0.0.1:0", "--name", ENDPOINT, "--shared", "127.0.0.1:443"),
            *("--metadata", f"{metadata.ADDRESS}:80", "--secret", f"disk={VALUE}"),
        ]
        with standin.running(tmp_path, *arguments, ready=tmp_path / "ready", within=within):
            said = ask_elsewhere(within, KmsRole("disk", kms_cert_pem=(tmp_path / "ca.pem").read_text()))
            stranger = ask_elsewhere(within, KmsRole("disk", kms_cert_pem=authority.pem))
            assert ENDPOINT in network.queries()
    assert said == ["256 bytes", "[]"]
    assert f"the certificate of {ENDPOINT} is refused" in stranger[0]


# Whose secret it is

FULL = f"acs:kms:cn-hangzhou:{acs3.ACCOUNT}:secret/disk"
FOREIGN = base64.b64encode(b"another disk's key, by whoever runs the host").decode()


@pytest.fixture
def crowded(service: MetadataServer, authority: Authority) -> Iterator[SharedGateway]:
    """A gateway with a secret of the same name in two accounts."""
    certificate = make_server_certificate(authority)
    others = {"disk": Secret(FOREIGN)}
    with SharedGateway({"disk": Secret(VALUE)}, service.grants, certificate, others=others) as server:
        yield server


def test_a_hostile_host_gives_a_secret_of_its_own_for_a_name_and_none_for_a_full_name(
    service: MetadataServer, authority: Authority, crowded: SharedGateway
) -> None:
    service.behaviour = "another-account"
    by_name = KmsRole("disk", endpoint=crowded.endpoint, kms_cert_pem=authority.pem)
    with keys.prepare(by_name)(5) as passphrase:
        assert bytes(passphrase.reveal()) == base64.b64decode(FOREIGN)
    for stage in ("ACSCurrent", "ACSPrevious"):
        error = failure(dataclasses.replace(by_name, secret_name=FULL, stage=stage))
        assert error.what == f'reading secret "{FULL}" is not permitted (KMS says Forbidden.NoPermission)'
        assert "the account in secret_name" in error.hint
        assert not error.retryable


def test_a_full_name_is_the_secret_of_its_own_account(authority: Authority, crowded: SharedGateway) -> None:
    role = KmsRole(FULL, endpoint=crowded.endpoint, kms_cert_pem=authority.pem)
    with keys.prepare(role)(5) as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
    assert [(one.secret, one.outcome) for one in crowded.requests] == [(FULL, "ok")]


def test_a_full_name_has_the_region(service: MetadataServer, authority: Authority, crowded: SharedGateway) -> None:
    """The metadata service is not asked for it, and nothing else is asked of another region's gateway."""
    service.region = "cn-beijing"
    role = KmsRole(FULL, kms_cert_pem=authority.pem)
    assert "kms-vpc.cn-hangzhou.aliyuncs.com" in failure(role, timeout=1).what
    assert asked(service) == ["token", "role", "disk-reader"]
    elsewhere = dataclasses.replace(role, secret_name=FULL.replace("hangzhou", "beijing"), endpoint=crowded.endpoint)
    assert "there is no secret" in failure(elsewhere).what


@pytest.mark.parametrize(("name", "right"), [("disk", True), (FULL, True), ("other", False), (FULL + "2", False)])
def test_an_answer_that_names_another_secret_is_none(
    authority: Authority, crowded: SharedGateway, monkeypatch: pytest.MonkeyPatch, name: str, *, right: bool
) -> None:
    body = json.dumps({"SecretName": name, "SecretData": VALUE}).encode()
    monkeypatch.setattr(acs3, "write_response", lambda *_, **__: body)
    role = KmsRole(FULL, endpoint=crowded.endpoint, kms_cert_pem=authority.pem)
    if right:
        keys.prepare(role)(5).wipe()
    else:
        assert "answered with something that is not an answer of KMS" in failure(role).what


# The gateway


@pytest.mark.parametrize(
    ("behaviour", "said", "retryable"),
    [
        ("refuse", "KMS says Forbidden.NoPermission", False),
        ("throttle", "KMS says Rejected.Throttling", True),
        ("unavailable", "KMS says ServiceUnavailableTemporary", True),
        ("hang", "no answer from 127.0.0.1:", True),
        ("empty-body", "answered with something that is not an answer of KMS", True),
        ("html-throttle", "refuses: there are too many requests (HTTP status 429)", True),
        ("redirect", "answered with a redirect, which is not followed", True),
        ("hang-body", "broke off in the middle", True),
        ("drip", "broke off in the middle", True),
        ("huge-body", "is longer than 256 KiB, longer than any secret", False),
        ("key-disabled", 'the key that protects secret "disk" is disabled (KMS says Rejected.Disabled', False),
        ("wrong-signature-key", "KMS says SignatureDoesNotMatch", False),
        ("broken-body", "answered with something that is not an answer of KMS", True),
        ("not-base64", 'the value of secret "disk" is not base64', False),
        ("empty-secret", 'the value of secret "disk" is empty', False),
    ],
)
def test_trouble_at_the_gateway_is_told_and_judged(
    role: KmsRole, gateway: SharedGateway, behaviour: str, said: str, *, retryable: bool
) -> None:
    gateway.behave(behaviour)
    error = failure(role, timeout=1)
    assert said in error.what
    assert error.retryable is retryable
    assert error.hint
    assert len(gateway.requests) == 1


def test_an_unknown_secret_is_named(role: KmsRole) -> None:
    error = failure(dataclasses.replace(role, secret_name="typo"))
    assert error.what == 'there is no secret "typo" (KMS says Forbidden.ResourceNotFound)'
    assert "check secret_name and region_id" in error.hint
    assert not error.retryable


def test_permission_is_a_matter_of_the_roles_policy(role: KmsRole, gateway: SharedGateway) -> None:
    gateway.behave("refuse")
    assert "kms:GetSecretValue" in failure(role).hint


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", b'{"SecretData": 5}'])
def test_an_answer_without_a_text_is_none(role: KmsRole, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acs3, "write_response", lambda *_, **__: body)
    assert "answered with something that is not an answer of KMS" in failure(role).what


@pytest.mark.parametrize(
    ("status", "body", "said", "retryable"),
    [
        (429, b"{}", "refuses: there are too many requests (KMS says nothing but HTTP status 429)", True),
        (503, b"{}", "has an internal error (KMS says nothing but HTTP status 503)", True),
        (
            400,
            b'{"httpCode": "500", "Code": "X"}',
            "(KMS says HTTP status 400, and a code that is not known here)",
            False,
        ),
        (400, b'{"Code": "Operation.Forbidden"}', "refuses the request (KMS says Operation.Forbidden)", False),
        (403, b'{"Message": "denied"}', "refuses the request (KMS says nothing but HTTP status 403)", False),
        (400, b"null", "answered with something that is not an answer of KMS", True),
        (400, b"[5]", "answered with something that is not an answer of KMS", True),
        (206, b'{"SecretData": "AAAA"}', "answered with something that is not an answer of KMS", True),
        (403, b'{"Code": "Forbidden.NoPermission"}', "is not permitted (KMS says Forbidden.NoPermission)", False),
        (400, b"[" * 100_000, "answered with something that is not an answer of KMS", True),
    ],
)
def test_an_error_may_say_little(
    role: KmsRole, status: int, body: bytes, said: str, *, retryable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Reply(outcome="odd", status=status, body=body, content_type=acs3.JSON)
    monkeypatch.setattr(SharedGateway, "_treat", lambda *_: odd)
    error = failure(role)
    assert said in error.what
    assert error.retryable is retryable


def test_a_secret_of_type_binary_is_what_its_base64_says(role: KmsRole, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"SecretDataType": "binary", "SecretData": "QUFBQQ=="}'
    monkeypatch.setattr(acs3, "write_response", lambda *_, **__: body)
    with keys.prepare(role)(5) as passphrase:
        assert bytes(passphrase.reveal()) == b"AAAA"


def test_a_clock_that_is_wrong_is_to_be_set(service: MetadataServer, authority: Authority) -> None:
    """The gateway allows for 15 minutes; here for none."""
    never = datetime.timedelta(seconds=-1)
    certificate = make_server_certificate(authority)
    with SharedGateway({"disk": Secret(VALUE)}, service.grants, certificate, max_skew=never) as server:
        error = failure(KmsRole("disk", endpoint=server.endpoint, kms_cert_pem=authority.pem))
    assert "finds that this machine's clock is wrong (KMS says InvalidTimeStamp.Expired" in error.what
    assert error.what.count(" UTC") == 2
    assert "both clocks agree" in error.hint


def test_the_whole_try_has_the_time_it_is_given(role: KmsRole, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the metadata service has taken, the gateway has no more."""
    given: list[int] = []
    options = kms_openapi.RuntimeOptions

    def note(**values: Any) -> object:
        given.extend((values["connect_timeout"], values["read_timeout"]))
        return options(**values)

    monkeypatch.setattr(kms_openapi, "RuntimeOptions", note)
    keys.prepare(role)(3).wipe()
    keys.prepare(role)(100).wipe()
    assert all(value <= limit for value, limit in zip(given, (3000, 3000, 5000, 15000)))
    assert all(given)


@pytest.mark.parametrize("behaviour", ["ok", "refuse", "broken-body", "not-base64", "wrong-signature-key"])
def test_no_failure_shows_a_secret(
    role: KmsRole,
    gateway: SharedGateway,
    service: MetadataServer,
    behaviour: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def quote(text: str) -> errors.ErrorReply:
        (grant,) = service.grants.values()
        return errors.ErrorReply(
            400, "SignatureDoesNotMatch", f"No. server string to sign is:{text}{grant.security_token}"
        )

    monkeypatch.setattr(acs3, "signature_does_not_match", quote)
    gateway.behave(behaviour)
    said = ""
    with caplog.at_level(logging.DEBUG):
        try:
            keys.prepare(role)(2).wipe()
        except KeyFetchError as error:
            said = f"{error} {error.hint} {error.__cause__!r}"
    output = capfd.readouterr()
    seen = said + caplog.text + output.out + output.err
    (grant,) = service.grants.values()
    for secret in (VALUE[:32], SECRET[:16].hex(), grant.access_key_secret, grant.security_token[:20], "correct horse"):
        assert secret not in seen


# Who is trusted


def test_by_default_the_cas_of_the_system_are_trusted(
    role: KmsRole, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "ca-certificates.crt"
    monkeypatch.setattr(certificates, "PLACES", (tmp_path / "absent", store))
    default = dataclasses.replace(role, kms_cert_pem=None)
    error = failure(default)
    assert "no CA bundle" in error.what
    assert "ca-certificates" in error.hint
    store.write_text(make_authority().pem)
    assert "the CAs that the system trusts" in failure(default).hint
    other = tmp_path / "ca-bundle.crt"
    other.write_text(authority.pem)
    monkeypatch.setattr(certificates, "PLACES", (other,))
    keys.prepare(default)(5).wipe()


def test_beside_a_given_ca_nobody_is_trusted(
    role: KmsRole, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the CAs of the system, nor one with which the same gateway was asked before."""
    public = tmp_path / "public.pem"
    public.write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(public))
    monkeypatch.setattr("certifi.where", lambda: str(public))
    monkeypatch.setattr(certificates, "PLACES", (public,))
    keys.prepare(role)(5).wipe()
    keys.prepare(dataclasses.replace(role, kms_cert_pem=None))(5).wipe()
    error = failure(dataclasses.replace(role, kms_cert_pem=make_authority().pem))
    assert "is refused" in error.what
    assert "the CA in kms_cert_pem" in error.hint
    assert not error.retryable


def test_a_ca_that_is_no_certificate_is_not_blamed_on_the_gateway(role: KmsRole, authority: Authority) -> None:
    damaged = authority.pem.replace("MII", "MI!", 1)
    with pytest.raises(KeyFetchError, match="kms_cert_pem cannot be read as certificates"):
        keys.prepare(dataclasses.replace(role, kms_cert_pem=damaged))


def test_a_person_is_told_whom_is_asked() -> None:
    assert keys.describe(KmsRole("disk")) == {
        "provider": 'KMS with the instance\'s RAM role, secret "disk"',
        "endpoint": "kms-vpc.<region>.aliyuncs.com:443",
    }
    assert keys.describe(KmsRole("disk", "reader", "cn-beijing")) == {
        "provider": 'KMS with RAM role reader, secret "disk"',
        "endpoint": "kms-vpc.cn-beijing.aliyuncs.com:443",
    }
    assert keys.describe(KmsRole("disk", endpoint="10.0.0.7:8443"))["endpoint"] == "10.0.0.7:8443"

"""The OIDC provider against the stand-ins: a token becomes the secret, and each failure has its sentence and its fate.

The stand-ins check what the real services check (tests/unit/test_kms_oidc_sdk.py holds them to that with the unmodified
SDK); here the product's own client talks to them.
"""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.providers import limit
from cryptpilot_boot.providers.oidc import Aliyun, Oidc
from cryptpilot_boot.system import certificates
from cryptpilot_boot.system.wait import Deadline
from tests.kms.acs3 import ACCOUNT
from tests.kms.pki import make_authority, make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.shared import SharedGateway
from tests.kms.sts import BEHAVIOURS, PROVIDER, ROLE, TokenService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = bytes(range(256))
OLD = b"old" * 20
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ2bSJ9.c2ln_-8"


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TokenService, SharedGateway]]:
    """Both services, signed by a CA that the system trusts."""
    authority = make_authority()
    store = tmp_path / "ca.pem"
    store.write_text(authority.pem)
    monkeypatch.setattr(certificates, "PLACES", (store,))
    certificate = make_server_certificate(authority)
    secrets = {"disk": Secret(base64.b64encode(SECRET).decode(), previous=base64.b64encode(OLD).decode())}
    with (
        TokenService(certificate, {TOKEN}) as sts,
        SharedGateway(secrets, sts.grants, certificate) as gateway,
    ):
        yield sts, gateway


@pytest.fixture
def sts(trusted: tuple[TokenService, SharedGateway]) -> TokenService:
    return trusted[0]


@pytest.fixture
def gateway(trusted: tuple[TokenService, SharedGateway]) -> SharedGateway:
    return trusted[1]


@pytest.fixture
def oidc(sts: TokenService, gateway: SharedGateway) -> Oidc:
    """An `[encrypt.oidc]` section that is right."""
    kms = Aliyun(PROVIDER, ROLE, "cn-hangzhou", gateway.endpoint, sts.endpoint)
    return Oidc("sh", "disk", kms, ("-c", f"echo {TOKEN}"))


def writing(oidc: Oidc, code: str) -> Oidc:
    return dataclasses.replace(oidc, args=("-c", code))


def failure(oidc: Oidc, timeout: float = 5) -> KeyFetchError:
    """Ask once, and return what is said when it fails; neither a token nor credentials are in it."""
    with pytest.raises(KeyFetchError) as caught:
        keys.prepare(oidc)(timeout)
    told = caught.value.what + caught.value.hint
    assert TOKEN not in told
    assert "STS." not in told
    assert caught.value.hint
    return caught.value


def test_a_token_is_exchanged_and_the_secret_decoded(oidc: Oidc, sts: TokenService, gateway: SharedGateway) -> None:
    with keys.prepare(oidc)(5) as passphrase:
        assert (bytes(passphrase.reveal()), passphrase.strong) == (SECRET, True)
    assert [(one.role, one.session, one.outcome) for one in sts.requests] == [(ROLE, "cryptpilot", "ok")]
    assert [(one.api, one.secret, one.stage, one.outcome) for one in gateway.requests] == [
        ("GetSecretValue", "disk", "ACSCurrent", "ok")
    ]


def test_the_previous_value_and_a_full_name_are_read(oidc: Oidc) -> None:
    before = keys.previous(oidc)
    assert before is not None
    with keys.prepare(before)(5) as passphrase:
        assert bytes(passphrase.reveal()) == OLD
    full = dataclasses.replace(oidc, key_id=f"acs:kms:cn-hangzhou:{ACCOUNT}:secret/disk")
    with keys.prepare(full)(5) as passphrase:
        assert bytes(passphrase.reveal()) == SECRET


def test_each_try_has_a_token_and_credentials_of_its_own(oidc: Oidc, sts: TokenService, gateway: SharedGateway) -> None:
    gateway.behave("unavailable", times=2)
    with keys.ask_until(keys.prepare(oidc), Deadline(20), "v") as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
    assert len(sts.requests) == len(sts.grants) == len(gateway.requests) == 3


ROWS = [
    ("expired", "finds that the OIDC token has expired (STS says AuthenticationFail.OIDCToken.Expired", "clock", True),
    ("invalid", "does not accept the OIDC token (STS says", "identity provider expects", False),
    ("fingerprint", "does not accept the OIDC token (STS says", "fingerprints", False),
    ("untrusted", "does not let the OIDC token assume the role (STS says", "trust policy", False),
    ("throttle", "refuses: there are too many requests (STS says Throttling.User)", "quota", True),
    ("unavailable", "has an internal error (STS says", "state", True),
    (
        "nonsense",
        "answered with something that is not an answer of STS",
        "sts_endpoint is a security token service",
        True,
    ),
    (
        "no-credentials",
        "answered with something that is not an answer of STS",
        "sts_endpoint is a security token service",
        True,
    ),
    ("html", "answered with something that is not an answer of STS", "no proxy", True),
    ("redirect", "answered with a redirect, which is not followed", "", True),
    ("expired-at-kms", "does not accept the role's temporary credentials (KMS says", "clock", True),
]


@pytest.mark.parametrize(("behaviour", "what", "hint", "retryable"), ROWS, ids=[row[0] for row in ROWS])
def test_trouble_with_the_token_service_is_told_and_judged(
    oidc: Oidc, sts: TokenService, behaviour: str, what: str, hint: str, *, retryable: bool
) -> None:
    sts.behaviour = behaviour
    error = failure(oidc)
    assert what in error.what
    assert hint in error.hint
    assert error.retryable is retryable
    assert error.throttled is (behaviour == "throttle")


def test_every_behaviour_of_the_stand_in_has_its_row() -> None:
    assert {row[0] for row in ROWS} == set(BEHAVIOURS) - {"ok", "hang"}


def test_a_service_that_hangs_is_left_behind(oidc: Oidc, sts: TokenService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "LONGEST_TRY", 0.5)
    sts.behaviour = "hang"
    assert failure(oidc).retryable


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"role_arn": ROLE + "x"}, "knows no such role or identity provider (STS says EntityNotExist.Role)"),
        ({"oidc_provider_arn": PROVIDER + "x"}, "knows no such role or identity provider (STS says EntityNotExist."),
        ({"sts_endpoint": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({"endpoint": "127.0.0.1:1"}, "127.0.0.1:1"),
    ],
)
def test_what_is_configured_wrongly_is_told(oidc: Oidc, changes: dict[str, str], what: str) -> None:
    assert what in failure(dataclasses.replace(oidc, kms=dataclasses.replace(oidc.kms, **changes))).what


def test_what_kms_refuses_is_told_as_with_a_role(oidc: Oidc, gateway: SharedGateway) -> None:
    gateway.behave("refuse")
    error = failure(oidc)
    assert error.what.startswith('reading secret "disk" is not permitted (KMS says Forbidden.NoPermission')
    assert "kms:GetSecretValue" in error.hint
    gateway.behave("not-base64")
    assert "is not base64" in failure(oidc).what
    gateway.behave("ok")
    assert failure(dataclasses.replace(oidc, key_id="absent")).what.startswith('there is no secret "absent"')


def test_another_ca_is_not_trusted(
    oidc: Oidc, sts: TokenService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(make_authority().pem)
    monkeypatch.setattr(certificates, "PLACES", (other,))
    assert "is refused: unable to get local issuer certificate" in failure(oidc).what
    assert sts.requests == []


@pytest.mark.parametrize(
    ("code", "what", "hint", "retryable"),
    [
        ("true", "sh wrote nothing", "write the token", False),
        ("echo not a token", "sh wrote something else than an OIDC token", "write the token", False),
        (f"echo {TOKEN}; echo {TOKEN}", "sh wrote something else than an OIDC token", "write the token", False),
        ("printf 'a\\000b'", "sh wrote something else than an OIDC token", "write the token", False),
        ("head -c 30000 /dev/zero | tr '\\0' a", "sh wrote more than 20000 characters", "write the token", False),
        (f"echo {TOKEN} >&2; exit 3", "sh failed with exit status 3", "by hand", False),
        ("exit 75", "sh failed with exit status 75", "by hand", True),
        ("kill -9 $$", "sh was killed by SIGKILL", "by hand", False),
        ("sleep 60", "sh was not done within 1 s", 'the key "timeout" of its table', True),
    ],
)
def test_trouble_with_the_program_is_told_and_judged(
    oidc: Oidc, sts: TokenService, code: str, what: str, hint: str, *, retryable: bool
) -> None:
    error = failure(writing(oidc, code), timeout=1 if "sleep" in code else 20)
    assert error.what.startswith(what)
    assert hint in error.hint
    assert error.retryable is retryable
    assert sts.requests == []


def test_a_program_that_is_not_there_is_found_before_it_is_run(oidc: Oidc) -> None:
    absent = dataclasses.replace(oidc, command="/nowhere/token")
    with pytest.raises(CryptpilotError, match="program not found"):
        keys.require_usable(absent)
    assert "program not found" in failure(absent).what
    keys.require_usable(oidc)


def test_where_it_comes_from_is_described_without_arguments(oidc: Oidc) -> None:
    plain = dataclasses.replace(oidc, kms=Aliyun(PROVIDER, ROLE, "cn-hangzhou"))
    assert keys.describe(plain) == {
        "provider": 'KMS with an OIDC token for RAM role disk-reader, secret "disk"',
        "endpoint": "kms-vpc.cn-hangzhou.aliyuncs.com:443",
    }
    assert TOKEN not in repr(oidc)
    assert plain.token_service == "sts-vpc.cn-hangzhou.aliyuncs.com"

"""The stand-in for the security token service against the official SDK and its credentials client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.kms.pki import make_authority, make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.shared import SharedGateway
from tests.kms.sts import PROVIDER, ROLE, TokenService
from tests.unit import sdk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kms.pki import ServerCertificate
    from tests.unit.sdk import Sdk

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ2bSJ9.c2ln"
VALUE = "b2xkIHZhbHVl"


class Place:
    """Both stand-ins, and the SDK beside them."""

    def __init__(self, client: Sdk, sts: TokenService, gateway: SharedGateway, directory: Path) -> None:
        self._client = client
        self.sts = sts
        self.gateway = gateway
        self._directory = directory

    def fetch(self, **changes: str) -> dict[str, Any]:
        job = {
            "region": "cn-hangzhou",
            "endpoint": self.gateway.endpoint,
            "sts_endpoint": self.sts.endpoint,
            "role": ROLE,
            "provider": PROVIDER,
            "token_file": str(self._directory / "token"),
            "ca_file": str(self._directory / "ca.pem"),
            "secret": "disk",
            **changes,
        }
        return self._client.fetch(job)


@dataclass(frozen=True)
class Trusting:
    """The SDK, and the certificate of those whom it trusts. directory: where the certificate of their CA is."""

    client: Sdk
    certificate: ServerCertificate
    directory: Path


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusting]:
    directory = tmp_path_factory.mktemp("ca")
    authority = make_authority()
    (directory / "ca.pem").write_text(authority.pem)
    (directory / "token").write_text(TOKEN)
    with sdk.running("sdk_oidc_client.py", env={"SSL_CERT_FILE": str(directory / "ca.pem")}) as client:
        yield Trusting(client, make_server_certificate(authority), directory)


@pytest.fixture
def place(trusting: Trusting) -> Iterator[Place]:
    certificate = trusting.certificate
    with (
        TokenService(certificate, {TOKEN}) as sts,
        SharedGateway({"disk": Secret(VALUE)}, sts.grants, certificate) as gateway,
    ):
        yield Place(trusting.client, sts, gateway, trusting.directory)


def test_sdk_exchanges_a_token_and_gets_the_secret(place: Place) -> None:
    assert place.fetch() == {"value": VALUE}
    assert [(one.role, one.session, one.outcome) for one in place.sts.requests] == [(ROLE, "test", "ok")]
    assert [one.outcome for one in place.gateway.requests] == ["ok"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"role": ROLE + "x"}, "EntityNotExist.Role"),
        ({"provider": PROVIDER + "x"}, "EntityNotExist.OIDCProvider"),
    ],
)
def test_sdk_is_told_what_is_not_there(place: Place, changes: dict[str, str], code: str) -> None:
    assert code in place.fetch(**changes)["message"]
    assert place.gateway.requests == []


def test_sdk_is_told_that_a_token_is_no_good(place: Place) -> None:
    place.sts.behaviour = "expired"
    assert "AuthenticationFail.OIDCToken.Expired" in place.fetch()["message"]
    place.sts.tokens = set()
    assert "AuthenticationFail.OIDCToken.Invalid" in place.fetch()["message"]


def test_sdk_is_told_when_its_credentials_have_expired(place: Place) -> None:
    place.sts.behaviour = "expired-at-kms"
    assert "InvalidSecurityToken.Expired" in place.fetch()["message"]

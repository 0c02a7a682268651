"""The stand-in for the security token service against the official SDK and its credentials client."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kms.pki import make_authority, make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.shared import SharedGateway
from tests.kms.sts import PROVIDER, ROLE, TokenService

if TYPE_CHECKING:
    from collections.abc import Iterator

SDK_CLIENT = Path(__file__).parents[1] / "kms/sdk_oidc_client.py"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ2bSJ9.c2ln"
VALUE = "b2xkIHZhbHVl"


class Place:
    """Both stand-ins, and the SDK beside them."""

    def __init__(self, sts: TokenService, gateway: SharedGateway, directory: Path) -> None:
        self.sts = sts
        self.gateway = gateway
        self._directory = directory

    def fetch(self, **changes: str) -> dict[str, Any]:
        python = os.environ.get("CRYPTPILOT_SDK_PYTHON", "")
        if not Path(python).is_file():
            pytest.fail("CRYPTPILOT_SDK_PYTHON names no Python with the unmodified SDK; `make test` prepares one")
        authority = str(self._directory / "ca.pem")
        job = {
            "region": "cn-hangzhou",
            "endpoint": self.gateway.endpoint,
            "sts_endpoint": self.sts.endpoint,
            "role": ROLE,
            "provider": PROVIDER,
            "token_file": str(self._directory / "token"),
            "ca_file": authority,
            "secret": "disk",
            **changes,
        }
        done = subprocess.run(
            [python, "-I", str(SDK_CLIENT)],
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=True,
            env={**os.environ, "SSL_CERT_FILE": authority},
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    authority = make_authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    (tmp_path / "token").write_text(TOKEN)
    certificate = make_server_certificate(authority)
    with (
        TokenService(certificate, {TOKEN}) as sts,
        SharedGateway({"disk": Secret(VALUE)}, sts.grants, certificate) as gateway,
    ):
        yield Place(sts, gateway, tmp_path)


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

"""The stand-in gateway against the official SDK: what this SDK accepts, the agent's way of using it may rely on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kms.pki import ClientKey, Pki, make_authority, make_client_key, make_pki, make_server_certificate
from tests.kms.server import KmsServer
from tests.unit import sdk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.sdk import Sdk

VALUES = {"disk": "b2xkIHZhbHVl"}
NEW_VALUE = "bmV3IHZhbHVl"


@pytest.fixture(scope="module")
def client() -> Iterator[Sdk]:
    with sdk.running("sdk_client.py") as running:
        yield running


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


def sdk_fetch(
    client: Sdk,
    kms: KmsServer,
    ca_file: Path,
    key: ClientKey,
    *,
    name: str = "disk",
    stage: str = "",
    retry: bool = False,
) -> dict[str, object]:
    job = {
        "endpoint": kms.endpoint,
        "ca_file": str(ca_file),
        "client_key": key.text,
        "password": key.password,
        "secret": name,
        "stage": stage,
        "retry": retry,
    }
    return client.fetch(job)


@pytest.fixture
def ca_file(tmp_path: Path, pki: Pki) -> Path:
    path = tmp_path / "ca.pem"
    path.write_text(pki.authority.pem)
    return path


def test_sdk_gets_the_current_and_the_previous_value(client: Sdk, pki: Pki, ca_file: Path) -> None:
    with KmsServer(pki, VALUES) as kms:
        kms.rotate("disk", NEW_VALUE)
        default = sdk_fetch(client, kms, ca_file, pki.client_key)
        current = sdk_fetch(client, kms, ca_file, pki.client_key, stage="ACSCurrent")
        previous = sdk_fetch(client, kms, ca_file, pki.client_key, stage="ACSPrevious")
    assert default == current == {"value": NEW_VALUE, "stages": ["ACSCurrent"]}
    assert previous == {"value": VALUES["disk"], "stages": ["ACSPrevious"]}
    assert [request.stage for request in kms.requests] == ["ACSCurrent", "ACSCurrent", "ACSPrevious"]


def test_sdk_opens_a_client_key_in_the_old_encryption(client: Sdk, pki: Pki, ca_file: Path) -> None:
    old = Pki(authority=pki.authority, client_key=make_client_key(old_encryption=True))
    with KmsServer(old, VALUES) as kms:
        answer = sdk_fetch(client, kms, ca_file, old.client_key)
    assert answer == {"value": VALUES["disk"], "stages": ["ACSCurrent"]}


def test_sdk_refuses_a_server_of_another_ca(client: Sdk, pki: Pki, ca_file: Path) -> None:
    with KmsServer(pki, VALUES, certificate=make_server_certificate(make_authority())) as kms:
        answer = sdk_fetch(client, kms, ca_file, pki.client_key)
    assert answer["error"] == "UnretryableException"
    assert "CERTIFICATE_VERIFY_FAILED" in str(answer["message"])
    assert [request.outcome for request in kms.requests] == ["tls: TLSV1_ALERT_UNKNOWN_CA"]


def test_sdk_with_another_private_key_is_told_of_its_signature(client: Sdk, pki: Pki, ca_file: Path) -> None:
    other = make_client_key()
    text = json.dumps({**json.loads(other.text), "KeyId": pki.client_key.key_id})
    with KmsServer(pki, VALUES) as kms:
        key = ClientKey(key_id=pki.client_key.key_id, text=text, password=other.password)
        answer = sdk_fetch(client, kms, ca_file, key)
    assert answer["code"] == "SignatureNotMatch"
    assert [request.status for request in kms.requests] == [401]


def test_sdk_with_another_client_key_is_told_of_its_key_id(client: Sdk, pki: Pki, ca_file: Path) -> None:
    with KmsServer(pki, VALUES) as kms:
        answer = sdk_fetch(client, kms, ca_file, make_client_key())
    assert answer["code"] == "Unauthorized"
    assert [request.status for request in kms.requests] == [404]


def test_sdk_reports_an_unknown_secret_with_its_code(client: Sdk, pki: Pki, ca_file: Path) -> None:
    with KmsServer(pki, VALUES) as kms:
        answer = sdk_fetch(client, kms, ca_file, pki.client_key, name="absent")
    assert answer["code"] == "Forbidden.ResourceNotFound"
    assert [(request.secret, request.status) for request in kms.requests] == [("absent", 404)]


def test_sdk_gets_past_throttling_with_its_own_retry(client: Sdk, pki: Pki, ca_file: Path) -> None:
    with KmsServer(pki, VALUES) as kms:
        kms.behave("throttle", times=2)
        answer = sdk_fetch(client, kms, ca_file, pki.client_key, retry=True)
    assert answer["value"] == VALUES["disk"]
    assert [request.status for request in kms.requests] == [429, 429, 200]

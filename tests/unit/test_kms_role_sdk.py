"""The stand-ins for the shared gateway and the metadata service against the official SDK and its credentials client.

Both have addresses of their own in the SDK, so all of it runs in a network where these are the stand-ins'.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kms.acs3 import ACCOUNT, OTHER_ACCOUNT
from tests.kms.metadata import ADDRESS, ROLES
from tests.lab.net import namespace
from tests.unit import sdk, standin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.sdk import Sdk

REGION = "cn-hangzhou"
ENDPOINT = f"kms-vpc.{REGION}.aliyuncs.com"
INSTANCE = "kst-1.cryptoservice.kms.aliyuncs.com"
VALUE = "b2xkIHZhbHVl"
NEW_VALUE = "bmV3IHZhbHVl"
FOREIGN_VALUE = "Zm9yZWlnbg=="
FULL = f"acs:kms:{REGION}:{ACCOUNT}:secret/disk"


class Place:
    """The stand-ins in a network of their own, and the SDK beside them."""

    def __init__(self, sdk: Sdk, directory: Path) -> None:
        self._sdk = sdk
        self.directory = directory

    def fetch(
        self,
        name: str = "disk",
        *,
        role: str = "",
        stage: str = "",
        token_only: bool = True,
        endpoint: str = ENDPOINT,
    ) -> dict[str, Any]:
        job = {
            "region": REGION,
            "endpoint": endpoint,
            "role": role,
            "token_only": token_only,
            "ca_file": str(self.directory / "ca.pem"),
            "secret": name,
            "stage": stage,
        }
        return self._sdk.fetch(job)

    def behave(self, metadata: str) -> None:
        (self.directory / "metadata_behaviour").write_text(metadata)

    def records(self, name: str) -> list[dict[str, Any]]:
        record = self.directory / f"{name}.jsonl"  # it is made with the first request
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


@contextlib.contextmanager
def place(directory: Path, *options: str) -> Iterator[Place]:
    with namespace(names={ENDPOINT: "127.0.0.1", INSTANCE: "127.0.0.2"}, addresses=[f"{ADDRESS}/32"]) as network:
        arguments = [
            *("--listen", "127.0.0.2:443", "--name", ENDPOINT, "--name", INSTANCE, "--region", REGION),
            *("--shared", "127.0.0.1:443", "--metadata", f"{ADDRESS}:80"),
            *("--secret", f"disk={NEW_VALUE}", "--previous", f"disk={VALUE}"),
            *("--other-secret", f"disk={FOREIGN_VALUE}", *options),
        ]
        within = network.command([])
        with (
            standin.running(directory, *arguments, ready=directory / "ready", within=within),
            sdk.running("sdk_role_client.py", within) as client,
        ):
            yield Place(client, directory)


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("kms")) as found:
        yield found


@pytest.mark.root
def test_sdk_finds_the_role_and_gets_the_current_and_the_previous_value(hardened: Place) -> None:
    """The instance refuses whoever has no token."""
    hardened.behave("ok")
    assert hardened.fetch() == {"value": NEW_VALUE, "stages": ["ACSCurrent"], "kind": "text"}
    previous = hardened.fetch(role="disk-reader", stage="ACSPrevious")
    assert previous == {"value": VALUE, "stages": ["ACSPrevious"], "kind": "text"}
    assert [(one["api"], one["stage"], one["outcome"]) for one in hardened.records("requests")[-2:]] == [
        ("GetSecretValue", "ACSCurrent", "ok"),
        ("GetSecretValue", "ACSPrevious", "ok"),
    ]
    asked = hardened.records("metadata")
    assert {one["status"] for one in asked} == {200}
    assert {one["method"] for one in asked if not one["token"]} == {"PUT"}
    assert asked[-1]["path"] == ROLES + "disk-reader"


@pytest.mark.root
def test_sdk_gets_the_secret_from_the_instances_own_gateway_with_the_role(hardened: Place) -> None:
    hardened.behave("ok")
    assert hardened.fetch(endpoint=INSTANCE) == {"value": NEW_VALUE, "stages": ["ACSCurrent"], "kind": "text"}
    assert hardened.fetch("absent", endpoint=INSTANCE)["code"] == "Forbidden.ResourceNotFound"
    asked = [(one["api"], one["host"]) for one in hardened.records("requests")[-2:]]
    assert asked == [("GetSecretValue", INSTANCE)] * 2


@pytest.mark.root
def test_sdk_reports_an_unknown_secret_with_its_code(hardened: Place) -> None:
    hardened.behave("ok")
    assert hardened.fetch("absent")["code"] == "Forbidden.ResourceNotFound"


@pytest.mark.root
def test_sdk_gets_a_secret_by_its_full_name(hardened: Place) -> None:
    hardened.behave("ok")
    assert hardened.fetch(FULL)["value"] == NEW_VALUE
    assert hardened.fetch(FULL.replace(REGION, "cn-beijing"))["code"] == "Forbidden.ResourceNotFound"
    assert hardened.fetch(FULL.replace(ACCOUNT, OTHER_ACCOUNT))["code"] == "Forbidden.NoPermission"
    assert hardened.records("requests")[-3]["secret"] == FULL


@pytest.mark.root
def test_sdk_with_credentials_of_another_account_gets_the_secret_of_that_account_or_none(hardened: Place) -> None:
    hardened.behave("another-account")
    assert hardened.fetch()["value"] == FOREIGN_VALUE
    assert hardened.fetch(FULL)["code"] == "Forbidden.NoPermission"
    assert hardened.fetch(FULL.replace(ACCOUNT, OTHER_ACCOUNT))["value"] == FOREIGN_VALUE


@pytest.mark.root
def test_sdk_is_told_when_its_credentials_have_expired(hardened: Place) -> None:
    hardened.behave("expired-at-kms")
    assert hardened.fetch()["code"] == "InvalidSecurityToken.Expired"


@pytest.mark.root
@pytest.mark.parametrize(("behaviour", "status"), [("no-role", 404), ("off", 403)])
def test_sdk_gets_no_credentials(hardened: Place, behaviour: str, status: int) -> None:
    hardened.behave(behaviour)
    before = len(hardened.records("requests"))
    assert f"HttpCode={status}" in hardened.fetch()["message"]
    assert len(hardened.records("requests")) == before


@pytest.mark.root
def test_sdk_does_without_a_token_in_the_normal_mode(tmp_path: Path) -> None:
    with place(tmp_path, "--normal-mode") as found:
        assert found.fetch(token_only=False)["value"] == NEW_VALUE

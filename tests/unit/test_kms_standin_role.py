"""The stand-ins for the shared gateway and the metadata service: what they refuse.

That they accept what they should is for the unmodified SDK to show: test_kms_role_sdk.py.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

import pytest

from tests.kms import acs3, client
from tests.kms.acs3 import Grant
from tests.kms.errors import Refused
from tests.kms.metadata import REGION, ROLES, TOKEN, MetadataServer
from tests.kms.pki import make_authority, make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.shared import SharedGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
TARGET = "/?SecretName=disk&VersionStage=ACSCurrent"
GRANT = Grant("STS.mine", "key", "CAISmine", datetime.now(timezone.utc) + timedelta(days=1))
OTHER = Grant("STS.other", "other", "CAISother", GRANT.expires)
OVER = Grant("STS.over", "key", "CAISover", datetime.now(timezone.utc) - timedelta(seconds=1))
GRANTS = {grant.access_key_id: grant for grant in (GRANT, OTHER, OVER)}


def sign(
    grant: Grant, *, target: str = TARGET, body: bytes = b"", date: datetime = NOW, **changes: str | None
) -> dict[str, str]:
    """Return the headers of a signed request; changes are signed like what they take the place of, None leaves out.

    Written from the documentation, and sharing no code with the other side.
    """
    digest = hashlib.sha256(body).hexdigest()
    told = {
        "host": "kms.example",
        "x-acs-action": "GetSecretValue",
        "x-acs-version": "2016-01-20",
        "x-acs-date": f"{date:%Y-%m-%dT%H:%M:%SZ}",
        "x-acs-signature-nonce": "nonce",
        "x-acs-content-sha256": digest,
        "x-acs-accesskey-id": grant.access_key_id,
        "x-acs-security-token": grant.security_token,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    headers = {name: value for name, value in sorted(told.items()) if value is not None}
    path, _, query = target.partition("?")
    pairs = sorted(parse_qsl(query))
    request = f"POST\n{path}\n" + "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in pairs) + "\n"
    request += "".join(f"{name}:{value}\n" for name, value in headers.items()) + f"\n{';'.join(headers)}\n{digest}"
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.new(grant.access_key_secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"ACS3-HMAC-SHA256 Credential={grant.access_key_id},SignedHeaders={';'.join(headers)},Signature={signature}"
    )
    return headers


def refusal(headers: dict[str, str], target: str = TARGET, body: bytes = b"") -> str:
    """Return the code with which a request of the year 2024 is refused; empty if it is not."""
    try:
        acs3.verify("POST", target, headers, body, GRANTS, now=NOW)
    except Refused as refused:
        return refused.reply.code
    return ""


def test_a_signed_request_is_accepted() -> None:
    assert refusal(sign(GRANT)) == ""
    form = b"SecretName=disk"
    headers = sign(GRANT, target="/", body=form, content_type="application/x-www-form-urlencoded")
    assert refusal(headers, "/", form) == ""
    assert acs3.parse_request("/", form).secret_name == "disk"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("host", "kms-vpc.cn-beijing.aliyuncs.com"),
        ("x-acs-date", f"{NOW + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"),
        ("x-acs-signature-nonce", "another"),
        ("x-acs-accesskey-id", "STS.other"),
        ("x-acs-content-sha256", "0" * 64),
    ],
)
def test_a_header_that_was_changed_is_noticed(header: str, value: str) -> None:
    assert refusal({**sign(GRANT), header: value}) == "SignatureDoesNotMatch"


def test_what_was_not_signed_is_refused() -> None:
    assert refusal({**sign(GRANT), "x-acs-extra": "1"}) == "IncompleteSignature"
    assert refusal({**sign(GRANT), "content-type": "text/plain"}) == "IncompleteSignature"
    assert refusal(sign(GRANT), TARGET.replace("disk", "other")) == "SignatureDoesNotMatch"
    assert refusal(sign(GRANT), body=b"SecretName=other") == "SignatureDoesNotMatch"


def test_each_tampered_digit_of_the_signature_is_noticed() -> None:
    headers = sign(GRANT)
    start, _, signature = headers["authorization"].rpartition("=")
    for place, digit in enumerate(signature):
        other = signature[:place] + ("0" if digit != "0" else "1") + signature[place + 1 :]
        assert refusal({**headers, "authorization": f"{start}={other}"}) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (sign(GRANT, x_acs_action="Encrypt"), "InvalidAction.NotFound"),
        (sign(GRANT, x_acs_version="2015-01-01"), "InvalidVersion"),
        (sign(GRANT, x_acs_signature_nonce=None), "MissingSignatureNonce"),
        (sign(GRANT, x_acs_date=None), "MissingTimestamp"),
        (sign(GRANT, x_acs_date="Mon, 06 May 2024 07:08:09 GMT"), "InvalidTimeStamp.Format"),
        (sign(GRANT, date=NOW - timedelta(minutes=16)), "InvalidTimeStamp.Expired"),
        (sign(GRANT, date=NOW + timedelta(minutes=16)), "InvalidTimeStamp.Expired"),
        (sign(GRANT, x_acs_content_sha256="0" * 64), "SignatureDoesNotMatch"),
        (sign(GRANT, x_acs_security_token=None), "MissingSecurityToken"),
        (sign(GRANT, x_acs_security_token="CAISnobody"), "InvalidSecurityToken.Malformed"),
        (sign(GRANT, x_acs_security_token="CAISother"), "InvalidSecurityToken.MismatchWithAccessKey"),
        (sign(OVER), "InvalidSecurityToken.Expired"),
        (sign(Grant("STS.nobody", "key", "CAISmine", GRANT.expires)), "InvalidAccessKeyId.NotFound"),
        (sign(Grant("STS.mine", "another key", "CAISmine", GRANT.expires)), "SignatureDoesNotMatch"),
        ({**sign(GRANT), "authorization": "Bearer x"}, "IncompleteSignature"),
        ({**sign(GRANT), "authorization": ""}, "IncompleteSignature"),
    ],
)
def test_a_request_at_fault_is_refused(headers: dict[str, str], code: str) -> None:
    assert refusal(headers) == code


def test_the_clock_may_be_a_quarter_of_an_hour_off() -> None:
    for minutes in (-14, 14):
        assert refusal(sign(GRANT, date=NOW + timedelta(minutes=minutes))) == ""


def test_a_nonce_is_good_once() -> None:
    authority = make_authority()
    with SharedGateway({"disk": Secret("dg==")}, GRANTS, make_server_certificate(authority)) as gateway:
        headers = sign(GRANT, date=datetime.now(timezone.utc), host=gateway.endpoint)
        line = client.connect(gateway.endpoint, authority.pem)
        answers = []
        for _ in range(2):
            line.request("POST", TARGET, headers=headers)
            answer = line.getresponse()
            answers.append((answer.status, json.loads(answer.read())))
    assert answers[0][0] == 200
    assert answers[0][1]["SecretData"] == "dg=="
    assert (answers[1][0], answers[1][1]["Code"]) == (400, "SignatureNonceUsed")
    assert [request.outcome for request in gateway.requests] == ["ok", "SignatureNonceUsed"]


# The metadata service


@pytest.fixture
def service() -> Iterator[MetadataServer]:
    with MetadataServer() as server:
        yield server


def ask(service: MetadataServer, method: str, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(service.endpoint, timeout=5)
    connection.request(
        method, path, headers={f"X-aliyun-ecs-metadata-{k.replace('_', '-')}": v for k, v in headers.items()}
    )
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_without_a_token_nothing_is_told(service: MetadataServer) -> None:
    for path in (REGION, ROLES, ROLES + service.role):
        assert ask(service, "GET", path)[0] == 403
        assert ask(service, "GET", path, token="made-up")[0] == 403
    service.hardened = False
    assert ask(service, "GET", REGION) == (200, "cn-hangzhou")
    assert ask(service, "GET", REGION, token="made-up")[0] == 403
    assert service.grants == {}


def test_a_token_has_a_life(service: MetadataServer) -> None:
    status, token = ask(service, "PUT", TOKEN, token_ttl_seconds="60")
    assert (status, ask(service, "GET", ROLES, token=token)) == (200, (200, "disk-reader"))
    service._tokens[token] -= 61
    assert ask(service, "GET", ROLES, token=token)[0] == 403
    for life in ("0", "21601", "", "x"):
        assert ask(service, "PUT", TOKEN, token_ttl_seconds=life)[0] == 400
    assert ask(service, "PUT", TOKEN)[0] == 400


def test_credentials_are_those_the_gateway_knows(service: MetadataServer) -> None:
    _, token = ask(service, "PUT", TOKEN, token_ttl_seconds="60")
    told = json.loads(ask(service, "GET", ROLES + "disk-reader", token=token)[1])
    grant = service.grants[told["AccessKeyId"]]
    assert (told["AccessKeySecret"], told["SecurityToken"]) == (grant.access_key_secret, grant.security_token)
    assert told["Code"] == "Success"
    assert not grant.expired
    assert ask(service, "GET", ROLES + "another", token=token)[0] == 404

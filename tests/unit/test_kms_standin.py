"""The stand-in gateway: what it refuses, and how it misbehaves when told to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from google.protobuf.message import DecodeError

from tests.kms import client, protocol
from tests.kms.behaviours import BEHAVIOURS, HUGE
from tests.kms.errors import Refused
from tests.kms.pki import Pki, make_authority, make_pki, make_server_certificate
from tests.kms.server import KmsServer, Request

VALUE = base64.b64encode(bytes(range(256))).decode()
BODY = client.write_request("disk")
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.fixture
def kms(pki: Pki) -> Iterator[KmsServer]:
    with KmsServer(pki, {"disk": VALUE, "swap": VALUE}) as server:
        yield server


@pytest.fixture
def line(kms: KmsServer, pki: Pki) -> http.client.HTTPSConnection:
    """Prepare a connection that is patient for a short time."""
    return client.connect(kms.endpoint, pki.authority.pem, timeout=0.5)


def post(pki: Pki, line: http.client.HTTPSConnection, name: str = "disk") -> tuple[int, bytes]:
    body = client.write_request(name)
    return client.exchange(line, client.sign(pki.client_key, body), body)


def wait_for_request(kms: KmsServer) -> Request:
    """Return the first record, which may be a moment behind what the client sees."""
    deadline = time.monotonic() + 5
    while not kms.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    return kms.requests[0]


def refusal(pki: Pki, headers: dict[str, str], body: bytes = BODY) -> str:
    """Return the code with which a request of the year 2024 is refused; empty if it is not."""
    public_keys = {pki.client_key.key_id: pki.client_key.private_key().public_key()}
    try:
        protocol.verify(protocol.headers_by_name(list(headers.items())), body, public_keys, now=NOW)
    except Refused as refused:
        return refused.reply.code
    return ""


# What is refused


def test_a_signed_request_is_accepted(pki: Pki) -> None:
    assert refusal(pki, client.sign(pki.client_key, BODY, date=NOW)) == ""


def test_each_tampered_byte_of_the_body_is_noticed(pki: Pki) -> None:
    headers = client.sign(pki.client_key, BODY, date=NOW)
    for position in range(len(BODY)):
        tampered = bytearray(BODY)
        tampered[position] ^= 1
        assert refusal(pki, headers, bytes(tampered)) == "SignatureNotMatch"


def test_each_tampered_byte_of_the_signature_is_noticed(pki: Pki) -> None:
    headers = client.sign(pki.client_key, BODY, date=NOW)
    signature = base64.b64decode(headers["authorization"].split()[1])
    for position in range(0, len(signature), 17):
        tampered = bytearray(signature)
        tampered[position] ^= 1
        headers["authorization"] = f"Bearer {base64.b64encode(tampered).decode()}"
        assert refusal(pki, headers) == "SignatureNotMatch"


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("content-sha256", "0" * 64, "SignatureNotMatch"),
        ("date", "Mon, 06 May 2024 07:08:08 GMT", "SignatureNotMatch"),
        ("x-kms-extra", "unsigned", "SignatureNotMatch"),
        ("date", "2024-05-06T07:08:09Z", "InvalidParam"),
        ("date", "", "InvalidParam"),
        ("authorization", "", "InvalidParam"),
        ("authorization", "Bearer ", "InvalidParam"),
        ("authorization", "Bearer not/base64!", "InvalidParam"),
        ("authorization", "Basic AAAA", "InvalidParam"),
        ("x-kms-acccesskeyid", "", "MissingParameter"),
        ("x-kms-acccesskeyid", "KAAP.other", "Unauthorized"),
        ("x-kms-apiname", "Encrypt", "InvalidApiName"),
        ("x-kms-apiversion", "dkms-gcs-0.1", "InvalidApiVersion"),
        ("x-kms-signaturemethod", "RSA_PSS_SHA_256", "InvalidParam"),
        ("content-type", "application/json", "InvalidContentType"),
    ],
)
def test_a_changed_header_is_refused(pki: Pki, header: str, value: str, code: str) -> None:
    headers = client.sign(pki.client_key, BODY, date=NOW)
    assert refusal(pki, {**headers, header: value}) == code


@pytest.mark.parametrize(
    ("minutes", "code"), [(-16, "RequestTimeTooSkewed"), (-14, ""), (14, ""), (16, "RequestTimeTooSkewed")]
)
def test_a_date_is_good_for_a_quarter_of_an_hour(pki: Pki, minutes: int, code: str) -> None:
    headers = client.sign(pki.client_key, BODY, date=NOW + timedelta(minutes=minutes))
    assert refusal(pki, headers) == code


def test_the_lower_case_digest_is_not_the_one_asked_for(pki: Pki) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    assert refusal(pki, client.sign(pki.client_key, BODY, date=NOW, digest=digest)) == "SignatureNotMatch"
    assert refusal(pki, client.sign(pki.client_key, BODY, date=NOW, digest=digest.upper())) == ""


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x02\xff\xfe", b"", client.write_request("")])
def test_a_signed_body_that_asks_for_nothing_is_refused(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection, body: bytes
) -> None:
    status, answer = client.exchange(line, client.sign(pki.client_key, body), body)
    assert (status, client.read_error_code(answer)) == (400, "InvalidParameter")
    assert kms.requests[0].secret == ""


def test_tampering_on_the_wire_is_answered_with_an_error(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection
) -> None:
    headers = client.sign(pki.client_key, BODY)
    status, answer = client.exchange(line, headers, client.write_request("disl"))
    assert (status, client.read_error_code(answer)) == (401, "SignatureNotMatch")
    assert kms.requests[0].outcome == "SignatureNotMatch"


def test_a_bad_signature_is_refused_whatever_the_behaviour(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection
) -> None:
    kms.behave("throttle")
    headers = client.sign(pki.client_key, BODY)
    status, _ = client.exchange(line, headers, client.write_request("disl"))
    assert status == 401


# What is served


def test_one_connection_serves_many_requests_and_each_is_recorded(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection
) -> None:
    before = time.time()
    answers = [post(pki, line, "disk"), post(pki, line, "absent"), post(pki, line, "swap")]
    assert [status for status, _ in answers] == [200, 404, 200]
    assert client.read_value(answers[0][1]) == VALUE
    assert [(request.secret, request.outcome) for request in kms.requests] == [
        ("disk", "ok"),
        ("absent", "Forbidden.ResourceNotFound"),
        ("swap", "ok"),
    ]
    assert len({request.remote for request in kms.requests}) == 1
    assert kms.requests[0].remote.startswith("127.0.0.1:")
    assert {request.api for request in kms.requests} == {"GetSecretValue"}
    assert all(before <= request.time <= time.time() for request in kms.requests)


def test_there_is_no_previous_value_before_a_rotation(pki: Pki, kms: KmsServer) -> None:
    with pytest.raises(RuntimeError, match=r"^Forbidden\.ResourceNotFound$"):
        client.ask(kms.endpoint, pki.authority.pem, pki.client_key, "disk", "ACSPrevious")
    kms.rotate("disk", "bmV3")
    assert client.ask(kms.endpoint, pki.authority.pem, pki.client_key, "disk", "ACSPrevious") == VALUE
    assert client.ask(kms.endpoint, pki.authority.pem, pki.client_key, "disk", "ACSCurrent") == "bmV3"


def test_a_client_that_says_nothing_keeps_nobody_waiting(pki: Pki, kms: KmsServer) -> None:
    with socket.create_connection(("127.0.0.1", kms.port)):
        assert client.ask(kms.endpoint, pki.authority.pem, pki.client_key, "disk") == VALUE


@pytest.mark.parametrize(
    ("names", "addresses", "days", "reason"),
    [
        (["localhost"], ["127.0.0.2"], 1, "IP address mismatch"),
        (["localhost"], ["127.0.0.1"], -1, "certificate has expired"),
    ],
)
def test_certificates_that_do_not_fit_can_be_made(
    pki: Pki, names: list[str], addresses: list[str], days: int, reason: str
) -> None:
    end = datetime.now(timezone.utc) + timedelta(days=days)
    start = end - timedelta(days=30)
    certificate = make_server_certificate(
        pki.authority, names=names, addresses=addresses, not_before=start, not_after=end
    )
    with (
        KmsServer(pki, {"disk": VALUE}, certificate=certificate) as kms,
        pytest.raises(ssl.SSLCertVerificationError, match=reason),
    ):
        client.ask(kms.endpoint, pki.authority.pem, pki.client_key, "disk")


def test_another_ca_is_not_trusted(pki: Pki, kms: KmsServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        client.ask(kms.endpoint, make_authority().pem, pki.client_key, "disk")
    assert wait_for_request(kms).outcome == "tls: TLSV1_ALERT_UNKNOWN_CA"


def test_the_root_alone_is_not_enough_to_trust_the_server(pki: Pki, kms: KmsServer) -> None:
    root_alone = pki.authority.pem.partition("-----END CERTIFICATE-----\n")
    with pytest.raises(ssl.SSLCertVerificationError):
        client.ask(kms.endpoint, root_alone[0] + root_alone[1], pki.client_key, "disk")


# Behaviours


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("refuse", 403, "Forbidden.NoPermission"),
        ("throttle", 429, "Rejected.Throttling"),
        ("unavailable", 503, "ServiceUnavailableTemporary"),
        ("wrong-signature-key", 401, "SignatureNotMatch"),
    ],
)
def test_errors_on_demand(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection, name: str, status: int, code: str
) -> None:
    kms.behave(name)
    answered, answer = post(pki, line)
    assert (answered, client.read_error_code(answer)) == (status, code)
    assert (kms.requests[0].status, kms.requests[0].outcome) == (status, code)
    kms.behave("ok")
    assert post(pki, line)[0] == 200


@pytest.mark.parametrize("name", sorted(BEHAVIOURS.keys() - {"ok", "hang", "hang-body", "huge-body"}))
def test_a_behaviour_ends_after_the_times_it_is_given(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection, name: str
) -> None:
    kms.behave(name, times=2, seconds=0.001)  # of which "drip" has one for each byte
    for _ in range(3):
        post(pki, line)
    assert [request.outcome == "ok" for request in kms.requests] == [False, False, True]


def test_a_behaviour_can_befall_one_secret_only(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("unavailable", secret="swap")
    assert [post(pki, line, name)[0] for name in ("disk", "swap", "disk")] == [200, 503, 200]


@pytest.mark.parametrize("name", ["hang", "hang-body"])
def test_a_hanging_request_gets_no_whole_answer(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection, name: str
) -> None:
    kms.behave(name)
    with pytest.raises(socket.timeout):
        post(pki, line)
    assert [request.outcome for request in kms.requests] == [name]


def test_a_half_body_announces_the_whole(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("hang-body", seconds=0.1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(pki, line)
    assert len(caught.value.partial) == pytest.approx(caught.value.expected, abs=1)


def test_a_hang_can_end(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("hang", seconds=0.1)
    with pytest.raises(http.client.RemoteDisconnected):
        post(pki, line)


@pytest.mark.parametrize("name", ["hang", "hang-body", "slow"])
def test_stopping_releases_hanging_clients_at_once(pki: Pki, name: str) -> None:
    released: list[Exception] = []
    threads = threading.active_count()

    def wait_for_an_answer() -> None:
        try:
            post(pki, client.connect(server.endpoint, pki.authority.pem, timeout=20))
        except (OSError, http.client.HTTPException) as error:
            released.append(error)

    with KmsServer(pki, {"disk": VALUE}) as server:
        server.behave(name, seconds=20)
        waiting = threading.Thread(target=wait_for_an_answer)
        waiting.start()
        wait_for_request(server)
        before = time.monotonic()
    waiting.join(5)
    while threading.active_count() > threads and time.monotonic() - before < 5:
        time.sleep(0.01)
    assert time.monotonic() - before < 1
    assert len(released) == 1
    assert not isinstance(released[0], socket.timeout)


def test_stopping_closes_an_idle_connection(pki: Pki) -> None:
    with KmsServer(pki, {"disk": VALUE}) as server:
        line = client.connect(server.endpoint, pki.authority.pem, timeout=1)
        assert post(pki, line)[0] == 200
    assert line.sock.recv(1) == b""


def test_a_slow_answer_is_right(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("slow", seconds=0.2)
    before = time.monotonic()
    assert client.read_value(post(pki, line)[1]) == VALUE
    assert time.monotonic() - before >= 0.2


def test_a_wrong_secret_looks_right(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("wrong-secret")
    values = {client.read_value(post(pki, line)[1]) for _ in range(2)}
    assert len(values | {VALUE}) == 3
    assert {len(base64.b64decode(value, validate=True)) for value in values} == {256}


def test_a_secret_can_be_no_base64(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("not-base64")
    value = client.read_value(post(pki, line)[1])
    with pytest.raises(binascii.Error):
        base64.b64decode(value, validate=True)


def test_a_secret_can_be_empty(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("empty-secret")
    status, body = post(pki, line)
    assert (status, client.read_value(body)) == (200, "")


def test_a_broken_body_is_no_protobuf(pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection) -> None:
    kms.behave("broken-body")
    status, body = post(pki, line)
    assert status == 200
    with pytest.raises(DecodeError):
        client.read_value(body)


def test_a_huge_body_is_a_response_that_does_not_end_soon(
    pki: Pki, kms: KmsServer, line: http.client.HTTPSConnection
) -> None:
    kms.behave("huge-body")
    line.request("POST", "/", body=BODY, headers=client.sign(pki.client_key, BODY))
    response = line.getresponse()
    assert response.length is not None
    assert response.length > HUGE
    value = client.read_value(response.read())
    assert len(value) == HUGE


def test_an_unknown_behaviour_is_a_mistake_of_the_test(kms: KmsServer) -> None:
    with pytest.raises(ValueError, match="no behaviour 'thottle'"):
        kms.behave("thottle")

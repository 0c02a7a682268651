"""Whatever is answered, with whatever status: of its text nothing is told but an error code that is on our list."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import itertools
import json
import logging
import socket
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest
from openapi_util.protobuf import api_pb2

from cryptpilot_boot import keys, log
from cryptpilot_boot.boot import console
from cryptpilot_boot.boot.stage import Outcome
from cryptpilot_boot.config import Exec, Kms, KmsRole, Volume
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import foreign, metadata
from tests.kms import acs3, errors, protocol
from tests.kms.behaviours import Reply
from tests.kms.metadata import MetadataServer
from tests.kms.pki import make_pki, make_server_certificate
from tests.kms.protocol import Call
from tests.kms.server import KmsServer
from tests.kms.shared import SharedGateway
from tests.kms.transport import _server_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Encrypt
    from tests.kms.pki import Pki, ServerCertificate

# letters and digits alone, as a value in base64 may be; and a word that has the look of an error code
SECRET = base64.b64encode(b"Kd9xQz7LmNpRtVbWcYfGhJkM").decode()
MARKER = "MarkerOfAnAnswer"
FORBIDDEN = (SECRET, SECRET[3:11], base64.b64decode(SECRET).decode(), MARKER)
STATUSES = (
    *(200, 201, 204, 206, 300, 301, 302, 304),
    *(400, 401, 403, 404, 408, 409, 413, 429, 499),
    *(500, 501, 503, 504, 599, 600, 999),
)
TYPES = ("application/x-protobuf", "application/json;charset=utf-8", "text/html", f"text/{MARKER}")
HEADERS = (
    ("x-acs-request-id", SECRET),
    ("x-acs-retry-after", SECRET),
    ("retry-after", SECRET),
    ("date", SECRET),
    ("set-cookie", f"{MARKER}={SECRET}"),
    ("www-authenticate", f"Basic realm={SECRET}"),
)

CALL = Call("disk", "ACSCurrent")
SUCCESS = protocol.write_response(CALL, SECRET)
JSON_SUCCESS = acs3.write_response(CALL, SECRET)


def protobuf_error(status: int, code: str, message: str, request_id: str) -> bytes:
    error = api_pb2.Error(StatusCode=status, ErrorCode=code, ErrorMessage=message, RequestId=request_id)
    return bytes(error.SerializeToString())


def json_error(**fields: object) -> bytes:
    return json.dumps(fields).encode()


BODIES: tuple[bytes, ...] = (
    *(SUCCESS, SUCCESS[: len(SUCCESS) // 2], SUCCESS[:-3], SUCCESS + SUCCESS, protocol.write_response(CALL, "")),
    bytes(api_pb2.GetSecretValueResponse(SecretData=SECRET).SerializeToString()),
    bytes(api_pb2.GetSecretValueResponse(SecretType=SECRET, SecretData=MARKER).SerializeToString()),
    *(JSON_SUCCESS, JSON_SUCCESS[: len(JSON_SUCCESS) // 2], b"[" + JSON_SUCCESS + b"]", b"\xef\xbb\xbf" + JSON_SUCCESS),
    protobuf_error(400, SECRET, SECRET, SECRET),
    protobuf_error(400, MARKER, f"server string to sign is: {SECRET}", MARKER),
    protobuf_error(400, f"Rejected.{MARKER}.Throttling", SECRET, SECRET),
    protobuf_error(400, "Forbidden.NoPermission", SECRET, SECRET),
    protobuf_error(400, f"Forbidden.NoPermission {SECRET}", SECRET, SECRET),
    json_error(Code=SECRET, Message=SECRET, RequestId=SECRET, HostId=SECRET, Recommend=SECRET),
    json_error(code=MARKER, message=f"the value is {SECRET}", requestId=SECRET, httpCode=SECRET),
    json_error(Code=f"InvalidTimeStamp.{MARKER}", Message=SECRET, statusCode=SECRET),
    json_error(Code={"SecretData": SECRET}, Message=[SECRET], Data=SECRET, data={"Code": SECRET}),
    json_error(Code="Forbidden.NoPermission", Message=SECRET, AccessDeniedDetail={MARKER: SECRET}),
    json_error(SecretName=SECRET, SecretData=5),
    json_error(SecretName="disk", SecretData=[SECRET]),
    *(json.dumps(SECRET).encode(), json.dumps({SECRET: None}).encode(), SECRET.encode(), MARKER.encode()),
    *(b"", b"null", b"true", b"5", b"{}", b"[]", b"{" * 5000, b"\xff" * 64),
    f"<html><title>{MARKER}</title>{SECRET}</html>".encode(),
    f"<Error><Code>{SECRET}</Code><Message>{SECRET}</Message></Error>".encode(),
)


def answers() -> Iterator[Reply]:
    """Yield every body with every status: one after the other, the kinds of content and the headers take turns."""
    kinds = itertools.cycle(TYPES)
    for status, body in itertools.product(STATUSES, BODIES):
        kind = next(kinds)
        yield Reply(
            *("odd", status, body, kind),
            reason=SECRET if kind.startswith("text") else None,
            headers=HEADERS if status % 2 else (),
            location=f"http://127.0.0.1:9/{SECRET}" if status in (301, 302) else "",
        )


class Listener:
    """Hears all that is told while a key is asked for: console, event log, standard error, tracebacks."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._said: list[str] = []
        self._console = console.verbose(self._said.append)

    def hear(self, event: log.Event) -> None:
        self._said.append(json.dumps(dataclasses.asdict(event)))
        self._console(event)

    def ask(self, ask: keys.Ask, encrypt: Encrypt) -> str:
        """Ask once; return all that was told of it, "" if there was an answer."""
        self._said.clear()
        try:
            with log.timed(log.FETCH_KEY, "v", **keys.describe(encrypt)), ask(5):
                return ""
        except KeyFetchError as error:
            log.emit(log.FETCH_KEY, "wait", volume="v", facts={"waiting_for": error.what, "tries": 1})
            outcome = Outcome(Volume("v", "/dev/v", encrypt, Path()), "initrd", 1.0, error, needed=True)
            self._said += [*console.result(outcome), error.hint, repr(error), *_trace(error)]
        output = self._capfd.readouterr()
        return "\n".join([*self._said, output.out, output.err])


def _trace(error: Exception) -> list[str]:
    return traceback.format_exception(type(error), error, error.__traceback__)


@pytest.fixture
def listener(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    # what libraries log goes where it goes without pytest, which listens: urllib3 quotes headers that it cannot read
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [one for one in root.handlers if type(one) is logging.NullHandler])
    made = Listener(capfd)
    with log.subscribed(made.hear):
        yield made


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    with MetadataServer() as server:
        monkeypatch.setattr(metadata, "ADDRESS", server.endpoint)
        yield server


def require_discreet(
    listener: Listener, encrypt: Encrypt, odd: Iterator[Reply], answer: Callable[[Reply], object], right: int
) -> None:
    """Ask for each answer that is given; right: in how many there is a secret indeed."""
    ask = keys.prepare(encrypt)
    values = total = 0
    for reply in odd:
        answer(reply)
        said = listener.ask(ask, encrypt)
        found = [text for text in FORBIDDEN if text in said]
        assert not found, f"{reply}: {said}"
        assert all(line.isprintable() for line in said.split("\n"))
        total += 1
        values += not said
    assert values == right
    assert total > len(STATUSES)


@pytest.mark.slow
def test_nothing_of_an_instances_answer_is_told(listener: Listener, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    with KmsServer(pki, {"disk": SECRET}) as server:
        kms = Kms("kst-1", "disk", pki.client_key.text, pki.client_key.password, pki.authority.pem, server.endpoint)
        # whole, and twice over
        require_discreet(
            listener, kms, answers(), lambda odd: monkeypatch.setattr(server, "_treat", lambda _: odd), right=2
        )


@pytest.mark.slow
def test_nothing_of_a_shared_gateways_answer_is_told(
    listener: Listener, service: MetadataServer, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SharedGateway({}, service.grants, make_server_certificate(pki.authority)) as server:
        role = KmsRole("disk", endpoint=server.endpoint, kms_cert_pem=pki.authority.pem)
        require_discreet(
            listener, role, answers(), lambda odd: monkeypatch.setattr(server, "_treat", lambda *_: odd), right=1
        )


CREDENTIALS = {
    "AccessKeyId": "STS.x",
    "AccessKeySecret": SECRET,
    "SecurityToken": SECRET,
    "Code": "Success",
}
TELLINGS: tuple[bytes, ...] = (
    *(SECRET.encode(), MARKER.encode(), f"{MARKER}\n{SECRET}".encode(), b"", b"null", b"5", b"[]", b"{}"),
    json_error(**CREDENTIALS),
    json_error(**CREDENTIALS)[:-20],
    json_error(**{**CREDENTIALS, "Code": SECRET}),
    json_error(**{**CREDENTIALS, "Code": MARKER}),
    json_error(**{**CREDENTIALS, "AccessKeyId": f"{SECRET}\r\nx: y"}),
    json_error(**{**CREDENTIALS, "SecurityToken": [SECRET]}),
    f"<html>{SECRET}</html>".encode(),
)


@pytest.mark.parametrize("place", ["token", "role", "region-id", "disk-reader"])
def test_nothing_of_the_metadata_services_answer_is_told(
    listener: Listener, service: MetadataServer, pki: Pki, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Credentials of its making may be used, and then KMS does not know them."""
    honest = service._reply
    with SharedGateway({}, service.grants, make_server_certificate(pki.authority)) as server:
        # an address that the region is a part of, and nothing listens at
        endpoint = None if place == "region-id" else server.endpoint
        role = KmsRole("disk", endpoint=endpoint, kms_cert_pem=pki.authority.pem)

        def answer(odd: Reply) -> None:
            monkeypatch.setattr(
                service,
                "_reply",
                lambda one: odd if (one.target.rpartition("/")[2] or "role") == place else honest(one),
            )

        odd = (
            Reply("odd", status, body, TYPES[2], reason=SECRET, headers=HEADERS)
            for status, body in itertools.product(
                (200, 204, 206, 302, 400, 401, 403, 404, 408, 429, 500, 503), TELLINGS
            )
        )
        require_discreet(listener, role, odd, answer, right=0)


# what is hardly HTTP: libraries quote of it in what they raise, and in warnings of their own
RAW: tuple[bytes, ...] = tuple(
    text.replace("S", SECRET).encode()
    for text in (
        "S",
        "S\r\n\r\n",
        "HTTP/1.1 S\r\n\r\n",
        "HTTP/9.9 200 S\r\n\r\n",
        "HTTP/1.1 200 OK\r\nS\r\n\r\nS",
        "HTTP/1.1 200 OK\r\nS S: S\r\n: S\r\n\r\nS",
        "HTTP/1.1 200 OK\r\ncontent-length: S\r\n\r\nS",
        "HTTP/1.1 200 OK\r\ncontent-length: 5, S\r\n\r\nS",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: S\r\n\r\nS",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nS\r\nS",
        "HTTP/1.1 400 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\nS",
        "HTTP/1.1 200 OK\r\ncontent-encoding: S\r\n\r\nS",
        "HTTP/1.1 400 OK\r\ncontent-type: application/json; charset=S\r\n\r\nS",
        "HTTP/1.1 302 S\r\nlocation: ://S:S@[S\r\n\r\nS",
        "HTTP/1.1 200 OK\r\n" + "x: S\r\n" * 200 + "\r\n",
        "HTTP/1.1 200 OK\r\nx: " + "S" * 4000 + "\r\n\r\n",
    )
)


@contextlib.contextmanager
def raw_server(certificate: ServerCertificate | None) -> Iterator[tuple[str, list[bytes]]]:
    """Serve the last of a list of bytes to each connection; yield the address and that list."""
    said = [b""]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while said:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    context = _server_context(certificate) if certificate else None
                    with context.wrap_socket(connection, server_side=True) if context else connection as stream:
                        stream.settimeout(5)
                        stream.recv(65536)
                        stream.sendall(said[-1] if said else b"")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", said
        finally:
            address = listener.getsockname()
            said.clear()
            socket.create_connection(address).close()
            thread.join()


@pytest.mark.parametrize("mode", ["client_key", "role", "metadata"])
@pytest.mark.usefixtures("service")
def test_nothing_of_what_is_hardly_http_is_told(
    listener: Listener, pki: Pki, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    certificate = None if mode == "metadata" else make_server_certificate(pki.authority)
    with raw_server(certificate) as (address, said):
        encrypt: Encrypt = KmsRole("disk", endpoint=address, kms_cert_pem=pki.authority.pem)
        if mode == "client_key":
            encrypt = Kms("kst-1", "disk", pki.client_key.text, pki.client_key.password, pki.authority.pem, address)
        elif mode == "metadata":
            monkeypatch.setattr(metadata, "ADDRESS", address)
        ask = keys.prepare(encrypt)
        for raw in RAW:
            said.append(raw)
            told = listener.ask(ask, encrypt)
            assert told
            assert not [text for text in FORBIDDEN if text in told], f"{raw!r}: {told}"


@pytest.mark.parametrize("status", [0, 1, 75])
@pytest.mark.parametrize(
    "script", ["set -x; echo {0}; ", "echo {0}; echo the key is {0} >&2; ", "echo {0}; echo {0} | cut -c 5-20 >&2; "]
)
def test_a_command_that_tells_its_output_is_not_quoted(
    listener: Listener, script: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "key.sh").write_text(script.format(SECRET) + f"exit {status}")
    command = Exec("sh", (str(tmp_path / "key.sh"),))
    told = listener.ask(keys.prepare(command), command)
    assert not [text for text in FORBIDDEN if text in told]
    assert ("(what it wrote to standard error is not shown: some of its output is in it)" in told) == (status != 0)


@pytest.mark.parametrize(
    "code", [error.code for error in vars(errors).values() if isinstance(error, errors.ErrorReply)]
)
def test_a_documented_code_is_told(code: str) -> None:
    assert foreign.code(code) == code


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", " ", 5, {"a": 1}, SECRET, MARKER, "x", "forbidden", "Forbidden.", ".Forbidden", "Forbidden..Key"),
        *("Forbidden Key", "Forbidden\n", "Forbidden\u001b", "Forbidden-Key", "Key5", "F\u00f6rbidden", "Not" * 30),
    ],
)
def test_what_does_not_look_like_a_code_is_not_told(text: object) -> None:
    assert foreign.code(text) == ""

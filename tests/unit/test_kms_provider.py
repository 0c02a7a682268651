"""The KMS provider against the stand-in: the secret arrives, and each failure has its sentence and its fate.

The stand-in checks what a gateway checks (tests/unit/test_kms_standin_sdk.py holds it to that with the
unmodified SDK); here the product's own client talks to it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot import keys, log
from cryptpilot_boot.config import Kms
from cryptpilot_boot.errors import KeyFetchError, NoValue
from cryptpilot_boot.system.wait import Deadline
from tests.kms.behaviours import Behaviour, Switch
from tests.kms.pki import make_client_key, make_pki, make_server_certificate
from tests.kms.server import KmsServer
from tests.lab.net import namespace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kms.pki import Pki

SECRET = bytes(range(256))
VALUE = base64.b64encode(SECRET).decode()


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def kms(pki: Pki, switch: Switch) -> Iterator[KmsServer]:
    with KmsServer(pki, {"disk": VALUE, "empty": "", "words": "not base64!"}, switch=switch) as server:
        yield server


def section(pki: Pki, endpoint: str, **changes: str) -> Kms:
    """Return an `[encrypt.kms]` section that is right but for `changes`."""
    values = {
        "kms_instance_id": "kst-test",
        "secret_name": "disk",
        "client_key": pki.client_key.text,
        "client_key_password": pki.client_key.password,
        "kms_cert_pem": pki.authority.pem,
        "endpoint": endpoint,
    }
    return Kms(**{**values, **changes})


def failure(kms: Kms, timeout: float = 5) -> KeyFetchError:
    """Ask once, and return what is said when it fails."""
    with pytest.raises(KeyFetchError) as caught:
        keys.prepare(kms)(timeout)
    return caught.value


ASK = """
import json, sys
from cryptpilot_boot import keys
from cryptpilot_boot.config import Kms
from cryptpilot_boot.errors import KeyFetchError
try:
    with keys.prepare(Kms(**json.load(sys.stdin)))(5) as passphrase:
        print(len(passphrase), "bytes")
except KeyFetchError as error:
    print(f"{error.what}; retryable {error.retryable}; unreachable {error.unreachable}")
"""

ASK_THE_SILENT = """
import json, socket, sys
from cryptpilot_boot import keys
from cryptpilot_boot.config import Kms
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.system.wait import Deadline
silent = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
for number, one in enumerate(silent, 2):
    one.bind((f"127.0.0.{number}", 53))
try:
    keys.ask_until(keys.prepare(Kms(**json.load(sys.stdin))), Deadline(7), "v")
except KeyFetchError as error:
    print(error.what)
"""


def ask_elsewhere(argv: list[str], kms: Kms) -> str:
    """Run ASK in a process of its own and return all it said."""
    return subprocess.run(
        argv,
        input=json.dumps(dataclasses.asdict(kms)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout.strip()


def test_the_secret_is_fetched_and_decoded(pki: Pki, kms: KmsServer) -> None:
    with keys.prepare(section(pki, kms.endpoint))(5) as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
        assert passphrase.strong
    assert [(request.api, request.secret, request.outcome) for request in kms.requests] == [
        ("GetSecretValue", "disk", "ok")
    ]


def test_the_value_before_the_rotation_is_fetched_where_there_is_one(pki: Pki, kms: KmsServer) -> None:
    previous = section(pki, kms.endpoint, stage="ACSPrevious")
    never = failure(previous)
    assert isinstance(never, NoValue)
    assert (never.what, never.retryable) == ('secret "disk" has no previous value', False)
    kms.rotate("disk", base64.b64encode(b"another").decode())
    with keys.prepare(previous)(5) as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
    # which is said of the previous value alone
    assert not isinstance(failure(section(pki, kms.endpoint, secret_name="absent")), NoValue)
    assert [request.stage for request in kms.requests] == ["ACSPrevious", "ACSPrevious", "ACSCurrent"]


def test_no_proxy_stands_before_the_gateway(pki: Pki, kms: KmsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    keys.prepare(section(pki, kms.endpoint))(5).wipe()


def test_a_client_key_in_the_older_encryption_is_opened_too(pki: Pki) -> None:
    """It is not documented which one the console uses."""
    older = dataclasses.replace(pki, client_key=make_client_key(old_encryption=True))
    with KmsServer(older, {"disk": VALUE}) as server, keys.prepare(section(older, server.endpoint))(5) as passphrase:
        assert len(passphrase) == len(SECRET)


def test_the_sdk_never_tries_twice_by_itself(pki: Pki, kms: KmsServer, switch: Switch) -> None:
    switch.set(Behaviour("throttle"))
    failure(section(pki, kms.endpoint))
    assert len(kms.requests) == 1


WAIT, LATER, FINAL = "wait", "later", "final"
"""What becomes of a failure: asked again soon, asked again when the crowd has gone, told at once."""


def fate(error: KeyFetchError) -> str:
    if not error.retryable:
        return FINAL
    return LATER if error.throttled else WAIT


@pytest.mark.parametrize(
    ("behaviour", "said", "becomes"),
    [
        ("refuse", 'reading secret "disk" is not permitted (KMS says Forbidden.NoPermission)', FINAL),
        ("key-disabled", 'the key that protects secret "disk" is disabled (KMS says Rejected.Disabled)', FINAL),
        ("key-not-found", 'the key that protects secret "disk" is gone (KMS says Forbidden.KeyNotFound)', FINAL),
        ("pending-deletion", 'secret "disk", or the key that protects it, is about to be deleted (KMS says ', FINAL),
        ("throttle", "{address} refuses: there are too many requests (KMS says Rejected.Throttling)", LATER),
        ("quota", "a quota of KMS is used up (KMS says QuotaExceeded)", LATER),
        ("unavailable", "{address} has an internal error (KMS says ServiceUnavailableTemporary)", WAIT),
        ("internal-failure", "{address} has an internal error (KMS says InternalFailure)", WAIT),
        ("no-word", "{address} has an internal error (KMS says nothing but HTTP status 500)", WAIT),
        ("bad-gateway", "{address} answered with something that is not an answer of KMS", WAIT),
        ("broken-body", "{address} answered with something that is not an answer of KMS", WAIT),
        ("slow", "no answer from {address} in time", WAIT),
        ("hang", "no answer from {address} in time", WAIT),
        ("empty-body", "{address} answered with something that is not an answer of KMS", WAIT),
        ("html-throttle", "{address} refuses: there are too many requests (HTTP status 429)", LATER),
        ("redirect", "{address} answered with a redirect, which is not followed", WAIT),
        ("hang-body", "the answer of {address} broke off in the middle", WAIT),
        ("drip", "the answer of {address} broke off in the middle", WAIT),
        ("huge-body", "the answer of {address} is longer than 256 KiB, longer than any secret", FINAL),
        ("wrong-signature-key", "{address} does not accept the signature (KMS says SignatureNotMatch)", FINAL),
        ("not-base64", 'the value of secret "disk" is not base64', FINAL),
        ("binary-secret", 'the value of secret "disk" is not base64 text: it holds other bytes', FINAL),
        ("empty-secret", 'the value of secret "disk" is empty', FINAL),
    ],
)
def test_trouble_at_the_gateway_is_told_and_judged(
    pki: Pki, kms: KmsServer, switch: Switch, behaviour: str, said: str, becomes: str
) -> None:
    switch.set(Behaviour(behaviour, seconds=3 if behaviour == "slow" else None))
    error = failure(section(pki, kms.endpoint), timeout=1)
    assert said.format(address=kms.endpoint) in error.what
    assert fate(error) == becomes
    assert error.hint


def test_an_answer_that_is_cut_off_is_not_taken_for_whole(pki: Pki, kms: KmsServer, switch: Switch) -> None:
    switch.set(Behaviour("hang-body", seconds=0))
    error = failure(section(pki, kms.endpoint))
    assert error.what == f"the answer of {kms.endpoint} broke off in the middle"
    assert fate(error) == WAIT


def test_whoever_speaks_no_tls_is_told_of(pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        endpoint = f"127.0.0.1:{plain.getsockname()[1]}"

        def serve() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        error = failure(section(pki, endpoint))
        thread.join()
    assert error.what.startswith(f"no encrypted connection to {endpoint}: ")
    assert fate(error) == WAIT


def test_an_unknown_secret_is_named(pki: Pki, kms: KmsServer) -> None:
    error = failure(section(pki, kms.endpoint, secret_name="typo"))
    assert error.what.startswith('there is no secret "typo" (KMS says Forbidden.ResourceNotFound)')
    assert "check secret_name" in error.hint
    assert not error.retryable


def test_nobody_listening_may_be_a_matter_of_time(pki: Pki) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        error = failure(section(pki, endpoint))
    assert error.what == f"{endpoint}: connection refused"
    assert error.retryable
    assert not error.unreachable


@pytest.mark.root
def test_a_name_that_cannot_be_resolved_may_be_a_network_that_is_not_up(pki: Pki) -> None:
    with namespace(names={}) as network:
        said = ask_elsewhere(network.command([sys.executable, "-c", ASK]), section(pki, "kms.example"))
    assert said == "kms.example cannot be resolved: the name is not known; retryable True; unreachable True"


@pytest.mark.root
def test_name_servers_that_are_silent_are_not_waited_for_long(pki: Pki, tmp_path: Path) -> None:
    """Two of them, none answers: the C library by itself would wait for 20 s."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.2\nnameserver 127.0.0.3\n")
    script = f'ip link set lo up; mount --bind {resolv} /etc/resolv.conf; exec timeout 60 "$@"'
    command = ["unshare", "--net", "--mount", "sh", "-euc", script, "sh", sys.executable, "-c", ASK_THE_SILENT]
    said = ask_elsewhere(command, section(pki, "kms.example"))
    assert said == "there is no route to any network: kms.example cannot be resolved: no name server answers"


@pytest.mark.root
def test_no_network_at_all_may_be_a_matter_of_time(pki: Pki) -> None:
    said = ask_elsewhere(["unshare", "--net", sys.executable, "-c", ASK], section(pki, "192.0.2.1"))
    assert said == "no network to reach 192.0.2.1: Network is unreachable; retryable True; unreachable True"


def test_a_certificate_of_another_ca_is_final(pki: Pki, kms: KmsServer) -> None:
    error = failure(section(pki, kms.endpoint, kms_cert_pem=make_pki().authority.pem))
    assert f"the certificate of {kms.endpoint} is refused" in error.what
    assert "kms_cert_pem must be the CA chain of KMS instance kst-test" in error.hint
    assert not error.retryable


def test_only_the_given_ca_is_trusted(
    pki: Pki, kms: KmsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA that this machine trusts for everything else is not good enough for the key service."""
    public = tmp_path / "public.pem"
    public.write_text(pki.authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    monkeypatch.setattr("certifi.where", lambda: str(public))
    assert "is refused" in failure(section(pki, kms.endpoint, kms_cert_pem=make_pki().authority.pem)).what


def test_a_certificate_for_another_name_is_final(pki: Pki) -> None:
    certificate = make_server_certificate(pki.authority, names=["kms.example"], addresses=[])
    with KmsServer(pki, {"disk": VALUE}, certificate=certificate) as server:
        error = failure(section(pki, server.endpoint))
    assert error.what == f"the certificate of {server.endpoint} is refused: it is for another name"
    assert fate(error) == FINAL


def test_files_pasted_with_the_ends_of_their_lines_will_do(pki: Pki, kms: KmsServer) -> None:
    key = json.loads(pki.client_key.text)
    data = key["PrivateKeyData"]
    broken = json.dumps({**key, "PrivateKeyData": "\n".join(data[at : at + 64] for at in range(0, len(data), 64))})
    changes = {"client_key": broken, "client_key_password": f"{pki.client_key.password}\n"}
    keys.prepare(section(pki, kms.endpoint, **changes))(5).wipe()


@pytest.mark.parametrize(
    "changes",
    [
        {"client_key_password": "wrong"},
        {"client_key": '{"KeyId": "K", "PrivateKeyData": "AAAA"}'},
        {"client_key": '{"KeyId": "K", "PrivateKeyData": "not base64"}'},
    ],
)
def test_an_unusable_client_key_is_told_before_anything_is_asked(pki: Pki, changes: dict[str, str]) -> None:
    with pytest.raises(KeyFetchError, match="client key cannot be opened") as caught:
        keys.prepare(section(pki, "127.0.0.1:9", **changes))
    assert not caught.value.retryable


def test_a_ca_chain_that_is_no_certificate_is_not_blamed_on_the_gateway(pki: Pki) -> None:
    damaged = pki.authority.pem.replace("MII", "MI!", 1)
    with pytest.raises(KeyFetchError, match="kms_cert_pem cannot be read as certificates"):
        keys.prepare(section(pki, "127.0.0.1:9", kms_cert_pem=damaged))


@pytest.mark.parametrize("behaviour", ["ok", "refuse", "broken-body", "not-base64", "wrong-signature-key"])
def test_no_failure_shows_a_secret(
    pki: Pki,
    kms: KmsServer,
    switch: Switch,
    behaviour: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    switch.set(Behaviour(behaviour))
    said = ""
    with caplog.at_level(logging.DEBUG):
        try:
            keys.prepare(section(pki, kms.endpoint))(2).wipe()
        except KeyFetchError as error:
            said = f"{error} {error.hint} {error.__cause__!r}"
    output = capfd.readouterr()
    seen = said + caplog.text + output.out + output.err
    for secret in (VALUE[:32], SECRET[:16].hex(), pki.client_key.password, "correct horse"):
        assert secret not in seen


def test_an_environment_that_has_the_sdk_talk_is_not_heeded(pki: Pki, kms: KmsServer) -> None:
    """With DEBUG=sdk the SDK writes what it sends and gets to standard error."""
    argv = ["env", "DEBUG=sdk", sys.executable, "-c", ASK]
    assert ask_elsewhere(argv, section(pki, kms.endpoint)) == "256 bytes"


# Asking again


def waits(events: list[log.Event]) -> list[str]:
    return [str(event.facts["waiting_for"]) for event in events if event.phase == "wait"]


@pytest.fixture
def events() -> Iterator[list[log.Event]]:
    seen: list[log.Event] = []
    with log.subscribed(seen.append):
        yield seen


def test_a_passing_trouble_is_waited_out(pki: Pki, kms: KmsServer, switch: Switch, events: list[log.Event]) -> None:
    switch.set(Behaviour("unavailable", times=2))
    ask = keys.prepare(section(pki, kms.endpoint))
    with keys.ask_until(ask, Deadline(20), "v") as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
    assert len(kms.requests) == 3
    assert len(waits(events)) == 2


def test_one_try_does_not_burn_the_deadline(
    pki: Pki, kms: KmsServer, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryptpilot_boot.providers.limit.LONGEST_TRY", 0.5)
    switch.set(Behaviour("hang", times=1))
    deadline = Deadline(30)
    with keys.ask_until(keys.prepare(section(pki, kms.endpoint)), deadline, "v") as passphrase:
        assert bytes(passphrase.reveal()) == SECRET
    assert deadline.left() > 20


def test_a_final_error_does_not_burn_the_deadline(pki: Pki, kms: KmsServer, switch: Switch) -> None:
    switch.set(Behaviour("refuse"))
    deadline = Deadline(30)
    with pytest.raises(KeyFetchError, match="NoPermission"):
        keys.ask_until(keys.prepare(section(pki, kms.endpoint)), deadline, "v")
    assert len(kms.requests) == 1
    assert deadline.left() > 20


def test_at_the_deadline_the_last_error_is_told_with_the_tries(pki: Pki, kms: KmsServer, switch: Switch) -> None:
    switch.set(Behaviour("throttle"))
    with pytest.raises(KeyFetchError, match=r"Rejected\.Throttling.* \(\d+ tries in 1 s\)"):
        keys.ask_until(keys.prepare(section(pki, kms.endpoint)), Deadline(1), "v")
    assert len(kms.requests) > 1

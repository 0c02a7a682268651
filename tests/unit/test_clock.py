"""A machine whose clock is wrong: both times are told, and in an initrd the gateway's is taken if it can be right."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import socket
import ssl
import tempfile
import threading
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.config import Kms
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import clock as judging
from cryptpilot_boot.system import clock
from tests.kms.pki import make_pki, make_server_certificate
from tests.kms.server import KmsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kms.pki import Pki

UTC = datetime.timezone.utc
NOW = datetime.datetime.now(UTC)
DAY = datetime.timedelta(days=1)
YEAR = 365 * DAY
TEXT = "%Y-%m-%d %H:"


@dataclasses.dataclass
class Machine:
    """What this machine believes: the difference of its clock, and what it was set to."""

    began: datetime.datetime = dataclasses.field(default_factory=lambda: datetime.datetime.now(UTC))
    """When the test did, by a clock that is right."""
    wrong_by: datetime.timedelta = -5 * YEAR
    set_to: list[datetime.datetime] = dataclasses.field(default_factory=list)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An initrd, made 100 days ago, with a clock that is five years back."""
    made = Machine()
    monkeypatch.setattr(clock, "now", lambda: made.began + made.wrong_by)
    monkeypatch.setattr(clock, "set_to", made.set_to.append)
    monkeypatch.setattr(clock, "image_made", lambda: NOW - 100 * DAY)
    monkeypatch.setattr(judging, "in_initrd", lambda: True)
    return made


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.fixture
def gateway(pki: Pki) -> Iterator[Callable[..., KeyFetchError]]:
    """Asks a gateway that finds the time wrong, with a certificate that is valid for so long; returns what is said."""
    servers = []

    def ask(begin: datetime.datetime = NOW - DAY, end: datetime.datetime = NOW + YEAR) -> KeyFetchError:
        certificate = make_server_certificate(pki.authority, not_before=begin, not_after=end)
        server = KmsServer(pki, {"disk": base64.b64encode(bytes(64)).decode()}, certificate=certificate)
        servers.append(server)
        server.start()
        server.behave("time-skewed")
        section = Kms(
            kms_instance_id="kst-test",
            secret_name="disk",
            client_key=pki.client_key.text,
            client_key_password=pki.client_key.password,
            kms_cert_pem=pki.authority.pem,
            endpoint=server.endpoint,
        )
        with pytest.raises(KeyFetchError) as caught:
            keys.prepare(section)(5)
        return caught.value

    yield ask
    for server in servers:
        server.stop()


def test_in_an_initrd_the_clock_is_set_by_the_gateways(machine: Machine, gateway: Callable[..., KeyFetchError]) -> None:
    error = gateway()
    assert [abs(moment - NOW) < DAY for moment in machine.set_to] == [True]
    assert error.what.startswith(f"this machine's clock said {(machine.began - 5 * YEAR).strftime(TEXT)}")
    assert error.retryable


def test_a_clock_that_is_ahead_is_set_too(machine: Machine, gateway: Callable[..., KeyFetchError]) -> None:
    machine.wrong_by = 5 * YEAR
    assert gateway().retryable
    assert len(machine.set_to) == 1


def test_in_the_booted_system_both_times_are_told_and_the_clock_is_let_be(
    machine: Machine, gateway: Callable[..., KeyFetchError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "in_initrd", lambda: False)
    error = gateway()
    assert "finds that this machine's clock is wrong (KMS says RequestTimeTooSkewed" in error.what
    assert f"this machine's clock says {(machine.began - 5 * YEAR).strftime(TEXT)}" in error.what
    assert error.what.count(" UTC") == 2
    assert "timedatectl" in error.hint
    assert error.retryable  # a time service may be about to set it
    assert machine.set_to == []


def test_a_time_before_the_image_was_made_is_not_believed(
    machine: Machine, gateway: Callable[..., KeyFetchError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "image_made", lambda: NOW + DAY)
    error = gateway()
    assert "which is not believed: this image was made later" in error.what
    assert "made with a clock that is ahead" in error.hint
    assert not error.retryable
    assert machine.set_to == []


@pytest.mark.parametrize("begin", [NOW - YEAR, NOW + YEAR], ids=["expired", "not yet valid"])
def test_a_time_at_which_its_certificate_is_not_valid_is_not_believed(
    machine: Machine, gateway: Callable[..., KeyFetchError], begin: datetime.datetime
) -> None:
    error = gateway(begin, begin + DAY)
    assert "which is not believed: its certificate is not valid at that time" in error.what
    assert not error.retryable
    assert machine.set_to == []


def test_a_certificate_that_both_clocks_refuse_has_to_be_renewed(
    machine: Machine, gateway: Callable[..., KeyFetchError]
) -> None:
    machine.wrong_by = datetime.timedelta()
    error = gateway(NOW - YEAR, NOW - DAY)
    assert "certificate has expired" in error.what
    assert "both clocks agree" in error.hint
    assert not error.retryable
    assert machine.set_to == []


def test_a_clock_that_was_set_meanwhile_is_a_reason_to_ask_again(
    machine: Machine, gateway: Callable[..., KeyFetchError]
) -> None:
    """As by another volume's agent, between the gateway's refusal and this one's look at the clock."""
    machine.wrong_by = datetime.timedelta()
    error = gateway()
    assert "both clocks agree" in error.hint
    assert error.retryable
    assert machine.set_to == []


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 503 Busy\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: 1 Jan 99999999999999 1:1:1 GMT\r\n\r\n"]
)
def test_who_cannot_be_asked_for_the_time_just_now_is_asked_again(machine: Machine, pki: Pki, said: bytes) -> None:
    certificate = make_server_certificate(pki.authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as chain:
        chain.write(certificate.pem + certificate.key_pem)
        chain.flush()
        context.load_cert_chain(chain.name)
    with socket.create_server(("127.0.0.1", 0)) as listener, context.wrap_socket(listener, server_side=True) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        trust = ssl.create_default_context(cadata=pki.authority.pem)
        error = judging.judge(KeyFetchError("not yet valid"), f"127.0.0.1:{server.getsockname()[1]}", trust, 5)
        thread.join()
    assert error.what.startswith("not yet valid; this machine's clock says")
    assert error.retryable
    assert machine.set_to == []


def test_the_time_is_not_taken_from_whom_the_ca_does_not_know(machine: Machine, pki: Pki) -> None:
    """Not even when TLS is told to pass over all times."""
    context = ssl.create_default_context(cadata=make_pki().authority.pem)
    with KmsServer(pki, {}) as server:
        error = judging.judge(KeyFetchError("not yet valid"), server.endpoint, context, 5)
    assert error.what.startswith("not yet valid; this machine's clock says")
    assert not error.retryable
    assert machine.set_to == []

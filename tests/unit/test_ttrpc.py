"""One call over ttrpc, against a server that writes its messages with the protobuf library."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptpilot_boot.passphrase import SecretBuffer
from cryptpilot_boot.providers import ttrpc
from cryptpilot_boot.system.wait import Deadline
from tests.kbs import wire
from tests.kbs.daemon import INTERNAL, UNIMPLEMENTED, Daemon

if TYPE_CHECKING:
    from pathlib import Path

URI = "kbs:///default/disk/key"
VALUE = bytes(range(256))


def call(path: Path, uri: str = URI, *, service: str = wire.SERVICE, seconds: float = 5) -> bytes:
    deadline = Deadline(seconds)
    with SecretBuffer(ttrpc.LONGEST) as buffer, ttrpc.connected(str(path), deadline) as connection:
        answer = ttrpc.call(connection, service, wire.METHOD, ttrpc.text(1, uri.encode()), buffer, deadline)
        return bytes(ttrpc.held(answer, 1))


def behaving(path: Path, behaviour: str) -> Daemon:
    return Daemon(path, {URI: VALUE}, behaviour)


@pytest.mark.parametrize("value", [VALUE, b"x" * 127, b"x" * 128, os.urandom(70_000), b"a" * (1 << 20)])
def test_a_resource_arrives_byte_for_byte_and_the_server_reads_what_was_asked(tmp_path: Path, value: bytes) -> None:
    with Daemon(tmp_path / "s", {URI: value}) as daemon:
        assert call(tmp_path / "s") == value
    assert daemon.asked == [URI]
    assert 4 < daemon.timeouts[0] <= 5


@pytest.mark.parametrize("behaviour", ["unknown-field", "drip"])
def test_what_may_be_otherwise_is_taken(tmp_path: Path, behaviour: str) -> None:
    """A field of a later version; an answer in pieces."""
    with Daemon(tmp_path / "s", {URI: b"key"}, behaviour):
        assert call(tmp_path / "s") == b"key"


@pytest.mark.parametrize("behaviour", ["empty", "no-payload"])
def test_an_empty_field_is_one_that_is_not_there(tmp_path: Path, behaviour: str) -> None:
    with behaving(tmp_path / "s", behaviour):
        assert call(tmp_path / "s") == b""


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("garbage", ttrpc.Broken),
        ("garbage-inside", ttrpc.Broken),
        ("garbage-payload", ttrpc.Broken),
        ("text-for-number", ttrpc.Broken),
        ("twice", ttrpc.Broken),
        ("cut-field", ttrpc.Broken),
        ("request", ttrpc.Broken),
        ("stream", ttrpc.Broken),
        ("other-stream", ttrpc.Broken),
        ("closed", ttrpc.Closed),
        ("closed-in-the-header", ttrpc.Closed),
        ("closed-in-the-middle", ttrpc.Closed),
        ("too-long-for-ttrpc", ttrpc.TooLong),
    ],
)
def test_what_the_protocol_does_not_have_is_no_answer(tmp_path: Path, behaviour: str, error: type[Exception]) -> None:
    with behaving(tmp_path / "s", behaviour), pytest.raises(error):
        call(tmp_path / "s")


@pytest.mark.parametrize(("behaviour", "code"), [("refused", INTERNAL), ("unimplemented", UNIMPLEMENTED)])
def test_a_status_is_told_by_its_code_alone(tmp_path: Path, behaviour: str, code: int) -> None:
    with behaving(tmp_path / "s", behaviour), pytest.raises(ttrpc.Refused) as caught:
        call(tmp_path / "s")
    assert (caught.value.code, str(caught.value)) == (code, f"status {code}")


def test_another_service_is_refused(tmp_path: Path) -> None:
    with behaving(tmp_path / "s", "ok"), pytest.raises(ttrpc.Refused) as caught:
        call(tmp_path / "s", service="api.SealedSecretService")
    assert caught.value.code == UNIMPLEMENTED


@pytest.mark.parametrize("behaviour", ["slow", "drip"])
def test_the_deadline_is_for_the_whole_answer(tmp_path: Path, behaviour: str) -> None:
    """Each byte of a drip comes in time."""
    began = time.monotonic()
    with behaving(tmp_path / "s", behaviour), pytest.raises(TimeoutError):
        call(tmp_path / "s", seconds=0.5)
    assert 0.4 < time.monotonic() - began < 2


def test_a_server_that_reads_nothing_holds_nobody_beyond_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(TimeoutError):
            call(tmp_path / "s", "kbs:///" + "a" * (1 << 20), seconds=0.3)


def test_a_deadline_that_is_over_asks_nobody(tmp_path: Path) -> None:
    with behaving(tmp_path / "s", "ok") as daemon, pytest.raises(TimeoutError):
        call(tmp_path / "s", seconds=0)
    assert daemon.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed, and only root can be one")
def test_another_user_who_listens_is_not_asked(tmp_path: Path) -> None:
    """Whoever may make a file where the socket is to be would hand out a key of his own when a volume is made."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        ready = threading.Event()
        sent: list[bytes] = []

        def serve() -> None:
            # of this thread alone, as the kernel has it
            os_setresuid = __import__("ctypes").CDLL(None).syscall
            os_setresuid(117, -1, 65534, -1)
            listener.listen()  # the credentials are those of this moment
            ready.set()
            listener.settimeout(2)
            sent.append(listener.accept()[0].recv(100))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert ready.wait(5)
        with pytest.raises(PermissionError, match="user 65534 listens there"):
            call(path)
        thread.join(5)
    assert sent == [b""]


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_fields_or_broken(data: bytes) -> None:
    """What is read of any bytes is what the protobuf library reads, or nothing."""
    ours, theirs = socket.socketpair()
    with ours, theirs, SecretBuffer(ttrpc.LONGEST) as buffer:
        theirs.sendall(wire.frame(wire.RESPONSE, data))
        try:
            mine = bytes(ttrpc.call(ours, wire.SERVICE, wire.METHOD, b"", buffer, Deadline(5)))
        except (ttrpc.Broken, ttrpc.Refused):
            return
    theirs = wire.read_response(data)
    assert (theirs.status.code, theirs.payload) == (0, mine)

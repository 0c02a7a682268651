"""A stand-in for the daemon of the confidential data hub: GetResource over ttrpc, and faults.

In a test:

    with Daemon(path, {"kbs:///default/disk/key": b"..."}) as daemon:
        daemon.behaviour = "refused"
        ...
        assert daemon.asked == ["kbs:///default/disk/key"]
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kbs import wire

INTERNAL, UNIMPLEMENTED = 13, 12
HIDDEN = "[CDH] [ERROR]: Get Resource failed"


@dataclass
class Daemon:
    """Serves resources by their URI, one connection after the other, until the `with` block ends."""

    path: Path
    resources: Mapping[str, bytes]
    behaviour: str = "ok"
    asked: list[str] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def __enter__(self) -> Daemon:
        self._over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.settimeout(0.02)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()
        self.path.unlink()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError), self._listener.accept()[0] as connection:
                connection.settimeout(5)
                with contextlib.suppress(ConnectionError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        length, stream, kind, flags = wire.HEADER.unpack(_receive(connection, wire.HEADER.size))
        request = wire.request(_receive(connection, length))
        right = (stream % 2, kind, flags, request.service, request.method)
        if right != (1, wire.REQUEST, 0, wire.SERVICE, wire.METHOD):
            connection.sendall(wire.frame(wire.RESPONSE, wire.response(code=UNIMPLEMENTED), stream=stream))
            return
        uri = wire.resource_path(request.payload)
        self.asked.append(uri)
        self.timeouts.append(request.timeout_nano / 1e9)
        if uri not in self.resources:
            connection.sendall(wire.frame(wire.RESPONSE, wire.response(code=INTERNAL, message=HIDDEN)))
            return
        FAULTS[self.behaviour](connection, self.resources[uri], self._over)


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


def _honest(value: bytes) -> bytes:
    return wire.frame(wire.RESPONSE, wire.response(wire.resource(value)))


def _says(write: Callable[[bytes], bytes]) -> Callable[[socket.socket, bytes, threading.Event], None]:
    return lambda connection, value, _: connection.sendall(write(value))


def _slow(_connection: socket.socket, _value: bytes, over: threading.Event) -> None:
    over.wait(5)


def _drip(connection: socket.socket, value: bytes, over: threading.Event) -> None:
    for byte in _honest(value):
        if over.is_set():
            return
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


FAULTS: Mapping[str, Callable[[socket.socket, bytes, threading.Event], None]] = {
    "ok": _says(_honest),
    "refused": _says(lambda _: wire.frame(wire.RESPONSE, wire.response(code=INTERNAL, message="Zm9yYmlkZGVu \x1b[2J"))),
    "unimplemented": _says(lambda _: wire.frame(wire.RESPONSE, wire.response(code=UNIMPLEMENTED))),
    "slow": _slow,
    "drip": _drip,
    "garbage": _says(lambda _: b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
    "garbage-inside": _says(lambda _: wire.frame(wire.RESPONSE, b"\xff" * 64)),
    "garbage-payload": _says(lambda _: wire.frame(wire.RESPONSE, wire.response(b"\xff" * 64))),
    "text-for-number": _says(lambda _: wire.frame(wire.RESPONSE, b"\x0a\x03\x0a\x01\x00")),
    "twice": _says(lambda value: wire.frame(wire.RESPONSE, 2 * wire.response(wire.resource(value)))),
    "cut-field": _says(lambda value: wire.frame(wire.RESPONSE, wire.response(wire.resource(value))[:-1])),
    "request": _says(lambda value: wire.frame(wire.REQUEST, wire.response(wire.resource(value)))),
    "stream": _says(lambda value: wire.frame(3, wire.resource(value), flags=1)),
    "other-stream": _says(lambda value: wire.frame(wire.RESPONSE, wire.response(wire.resource(value)), stream=3)),
    "closed": _says(lambda _: b""),
    "closed-in-the-header": _says(lambda value: _honest(value)[:5]),
    "closed-in-the-middle": _says(lambda value: _honest(value)[:-1]),
    "empty": _says(lambda _: _honest(b"")),
    "no-payload": _says(lambda _: wire.frame(wire.RESPONSE, b"")),
    "too-long-for-a-key": _says(lambda _: _honest(b"A" * ((1 << 20) + 1))),
    "too-long-for-ttrpc": _says(lambda _: wire.HEADER.pack(wire.LONGEST + 1, 1, wire.RESPONSE, 0)),
    "another-key": _says(lambda value: _honest(bytes(byte ^ 0xFF for byte in value))),
    "unknown-field": _says(
        lambda value: wire.frame(wire.RESPONSE, wire.response(wire.resource(value)) + b"\x7a\x02hi\x81\x01" + bytes(8))
    ),
}
"""Answers by the name of a behaviour; "another-key", "unknown-field" and "drip" are well-formed."""

"""HTTPS, or HTTP, with keep-alive, one thread for each connection; does what a Reply describes."""

from __future__ import annotations

import socket
import socketserver
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.kms import protocol
from tests.kms.behaviours import Reply
from tests.kms.pki import ServerCertificate

CHUNK = 64 << 10  # bytes


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came in; headers as in protocol.headers_by_name, remote as address:port."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    remote: str


class Listener(socketserver.ThreadingTCPServer):
    """Accepts connections from the moment it exists, answers them in `serve_forever`, and can drop them.

    Without a certificate it speaks plain HTTP. `note_failed_handshake` gets the remote `address:port` and a reason.
    """

    # Not http.server's HTTPServer: that one asks the name service for the host's name before it listens.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        certificate: ServerCertificate | None,
        *,
        answer: Callable[[HttpRequest], Reply],
        note_failed_handshake: Callable[[str, str], None] = lambda _remote, _reason: None,
    ) -> None:
        self.answer = answer
        self.note_failed_handshake = note_failed_handshake
        self.stopping = threading.Event()
        self._context = _server_context(certificate) if certificate else None
        self._connections: set[object] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def stop(self) -> None:
        """Close everything at once, hanging connections too."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            # Below TLS, whose state belongs to the connection's own thread; that thread wakes and ends.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # type: ignore[arg-type]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept without shaking hands: a client that is silent must not keep the others waiting."""
        connection, remote = super().get_request()
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._connections.add(connection)
        return connection, remote

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is over."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break, but all of a mistake in this program."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Server:
    """Answers by a listener, on a thread of its own; to be used as a context manager."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.server_address[1])

    @property
    def endpoint(self) -> str:
        """The address and port it listens on, in the form that a client takes."""
        return f"{self._listener.server_address[0]!s}:{self.port}"

    def start(self) -> None:
        """Begin to answer; connections made since the object exists have waited for this."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything at once, hanging connections too."""
        self._listener.stop()

    def __enter__(self: _S) -> _S:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


_S = TypeVar("_S", bound=Server)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    server: Listener

    def setup(self) -> None:
        try:
            if isinstance(self.request, ssl.SSLSocket):
                self.request.do_handshake()
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLEOFError):
                self.server.note_failed_handshake(self._remote, error.reason or str(error))
            raise
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = protocol.headers_by_name(self.headers.items())
        self._send(self.server.answer(HttpRequest(self.command, self.path, headers, body, self._remote)))

    do_GET = do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing; requests are recorded."""

    @property
    def _remote(self) -> str:
        return f"{self.client_address[0]}:{self.client_address[1]}"

    def _send(self, reply: Reply) -> None:
        """Do what a reply describes."""
        self._pause(reply.wait)
        if reply.status == 0:
            self.close_connection = True
        if self.close_connection:
            return
        self.send_response(reply.status, reply.reason)
        self.send_header("content-type", reply.content_type)
        if reply.location:
            self.send_header("location", reply.location)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(reply.body) + reply.padding))
        self.end_headers()
        for piece in _pieces(reply):
            self._pause(reply.drip)
            if self.close_connection:
                return
            self.wfile.write(piece)
            if reply.drip:
                self.wfile.flush()
        for _ in range(reply.padding // CHUNK):
            self.wfile.write(b"A" * CHUNK)
        if reply.cut is not None:
            self.wfile.flush()
            self._pause(reply.hold)
            self.close_connection = True

    def _pause(self, seconds: float) -> None:
        """Wait; when the server is being stopped, the wait ends and so does the connection."""
        if seconds and self.server.stopping.wait(min(seconds, threading.TIMEOUT_MAX)):
            self.close_connection = True


def _pieces(reply: Reply) -> list[bytes]:
    """Return what is sent of the body, in the pieces in which it is."""
    body = reply.body[: reply.cut]
    return [body[place : place + 1] for place in range(len(body))] if reply.drip else [body]


def _server_context(certificate: ServerCertificate) -> ssl.SSLContext:
    """Make the TLS context; `ssl` takes keys from files only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory() as directory:
        chain = Path(directory, "server.pem")
        chain.write_text(certificate.pem + certificate.key_pem)
        context.load_cert_chain(chain)
    return context

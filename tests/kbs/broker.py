"""The KBS of the lab's machines: `python -m tests.kbs.broker --listen HOST:PORT --dir DIR --ready-file FILE`.

A resource is the file DIR/resources/REPOSITORY/TYPE/TAG, given to whoever shows the evidence that DIR/evidence has.
What was asked for is appended to DIR/asked, a line each, with the status that it got. See guest.c for who asks.
"""

from __future__ import annotations

import argparse
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PREFIX = "/kbs/v0/resource/"
_REFUSED = b'{"type":"https://github.com/confidential-containers/kbs/errors/AttestationError","detail":""}'


class _Broker(ThreadingHTTPServer):
    directory: Path
    lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Broker

    def do_GET(self) -> None:
        directory = self.server.directory
        resource = directory / "resources" / self.path.removeprefix(_PREFIX)
        known = self.headers.get("x-evidence") == (directory / "evidence").read_text()
        status = 401 if not known else 200 if resource.is_file() else 404
        with self.server.lock, (directory / "asked").open("a") as file:
            file.write(f"{self.path.removeprefix(_PREFIX)} {status}\n")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(resource.read_bytes() if status == 200 else _REFUSED)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing; requests are recorded."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    parser = argparse.ArgumentParser(prog="python -m tests.kbs.broker")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    server = _Broker((host, int(port)), _Handler)
    server.directory = arguments.dir
    threading.Thread(target=server.serve_forever, daemon=True).start()
    arguments.ready_file.write_text("ready\n")
    signal.sigwait(signals)


if __name__ == "__main__":
    main()

"""The ways in which the stand-in can misbehave, by name.

A behaviour takes the honest answer to a valid request and returns what is sent instead; it sends nothing
itself.
"""

from __future__ import annotations

import base64
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tests.kms import errors, protocol
from tests.kms.errors import ErrorReply
from tests.kms.protocol import Call

HUGE = 64 << 20  # bytes


@dataclass(frozen=True)
class Behaviour:
    """Which behaviour, and how much of it."""

    name: str = "ok"
    times: int | None = None  # how many requests it befalls; the next ones are answered well. None: all
    seconds: float | None = None  # slow: before the answer (1); hang: before the connection is closed (never)
    secret: str | None = None  # befalls requests for this secret only. None: for all
    rate: int = 0  # crowd: requests that are served in each second

    def __post_init__(self) -> None:
        if self.name not in BEHAVIOURS:
            raise ValueError(f"no behaviour {self.name!r}; there are {', '.join(sorted(BEHAVIOURS))}")


@dataclass(frozen=True)
class Reply:
    """What the server does for a request, as a description."""

    outcome: str  # one word for the record: an error's code, or the behaviour
    status: int = 200  # 0: close the connection without an answer
    body: bytes = b""
    content_type: str = protocol.CONTENT_TYPE
    wait: float = 0  # seconds before the first byte
    padding: int = 0  # bytes of "A" sent after the body
    cut: int | None = None  # bytes of the body that are sent, where it is not all of them
    hold: float = 0  # seconds in which the connection stays open and silent after a cut
    drip: float = 0  # seconds between one byte of the body and the next
    location: str = ""  # where to ask instead
    reason: str | None = None  # beside the status, where it is not the usual one
    headers: tuple[tuple[str, str], ...] = ()  # more of them


def error_reply(error: ErrorReply) -> Reply:
    """Describe an error answer."""
    return Reply(outcome=error.code, status=error.status, body=protocol.write_error(error))


def _ok(_behaviour: Behaviour, _call: Call, honest: Reply) -> Reply:
    return honest


def _refuse(_behaviour: Behaviour, call: Call, _honest: Reply) -> Reply:
    return error_reply(errors.no_permission(call.secret_name))


def _says(error: ErrorReply) -> Callable[[Behaviour, Call, Reply], Reply]:
    return lambda _behaviour, _call, _honest: error_reply(error)


def _hang(behaviour: Behaviour, _call: Call, _honest: Reply) -> Reply:
    return Reply(outcome="hang", status=0, wait=_seconds(behaviour, math.inf))


def _hang_body(behaviour: Behaviour, _call: Call, honest: Reply) -> Reply:
    hold = _seconds(behaviour, math.inf)
    return replace(honest, outcome="hang-body", cut=len(honest.body) // 2, hold=hold)


def _drip(behaviour: Behaviour, _call: Call, honest: Reply) -> Reply:
    return replace(honest, outcome="drip", drip=_seconds(behaviour, 0.1))


def _slow(behaviour: Behaviour, _call: Call, honest: Reply) -> Reply:
    return replace(honest, outcome=f"slow {honest.outcome}", wait=_seconds(behaviour, 1))


def _wrong_secret(_behaviour: Behaviour, call: Call, _honest: Reply) -> Reply:
    value = base64.b64encode(os.urandom(256)).decode()
    return Reply(outcome="wrong-secret", body=protocol.write_response(call, value))


def _not_base64(_behaviour: Behaviour, call: Call, _honest: Reply) -> Reply:
    return Reply(outcome="not-base64", body=protocol.write_response(call, "correct horse, battery staple!"))


def _binary_secret(_behaviour: Behaviour, call: Call, _honest: Reply) -> Reply:
    """Send bytes as they are, as UTF-8 has them; a secret of type binary would be base64."""
    return Reply(outcome="binary-secret", body=protocol.write_response(call, bytes(range(256)).decode("latin-1")))


def _empty_secret(_behaviour: Behaviour, call: Call, _honest: Reply) -> Reply:
    return Reply(outcome="empty-secret", body=protocol.write_response(call, ""))


def _broken_body(_behaviour: Behaviour, _call: Call, _honest: Reply) -> Reply:
    """Send bytes that are no protobuf: field 31 of wire type 7, which does not exist."""
    return Reply(outcome="broken-body", body=b"\xff" * 64)


def _bad_gateway(_behaviour: Behaviour, _call: Call, _honest: Reply) -> Reply:
    """Answer as a load balancer does while nobody is behind it."""
    return Reply(outcome="bad-gateway", status=502, body=b"<html><h1>502 Bad Gateway</h1></html>")


def _empty_body(_behaviour: Behaviour, _call: Call, honest: Reply) -> Reply:
    return replace(honest, outcome="empty-body", body=b"")


def _html_throttle(_behaviour: Behaviour, _call: Call, honest: Reply) -> Reply:
    """Throttle as a load balancer does."""
    return replace(
        honest, outcome="html-throttle", status=429, body=b"<html>Slow down</html>", content_type="text/html"
    )


def _redirect(_behaviour: Behaviour, _call: Call, _honest: Reply) -> Reply:
    """Send the client to an address in the clear, where nobody should follow."""
    return Reply(outcome="redirect", status=307, location="http://127.0.0.1:9/")


def _no_word(_behaviour: Behaviour, _call: Call, _honest: Reply) -> Reply:
    return Reply(outcome="no-word", status=500)


def _huge_body(_behaviour: Behaviour, call: Call, _honest: Reply) -> Reply:
    """Send a valid response whose secret is 64 MiB long: nobody should read it to its end."""
    # Of two fields with one number the later wins, so the long secret (field 3, with a length) can follow a
    # whole message.
    head = protocol.write_response(call, "") + b"\x1a" + _varint(HUGE)
    return Reply(outcome="huge-body", body=head, padding=HUGE)


ERRORS: Mapping[str, ErrorReply] = {
    "throttle": errors.THROTTLED,
    "crowd": errors.THROTTLED,  # those of a second that are too many; see Switch
    "quota": errors.QUOTA_EXCEEDED,
    "unavailable": errors.SERVICE_UNAVAILABLE,
    "internal-failure": errors.INTERNAL_FAILURE,
    "key-disabled": errors.KEY_DISABLED,
    "key-not-found": errors.KEY_NOT_FOUND,
    "pending-deletion": errors.PENDING_DELETION,
    "time-skewed": errors.TIME_SKEWED,
    "wrong-signature-key": errors.SIGNATURE_NOT_MATCH,
}
"""Those that are an error, whatever was asked for."""

BEHAVIOURS: Mapping[str, Callable[[Behaviour, Call, Reply], Reply]] = {
    "ok": _ok,
    **{name: _says(error) for name, error in ERRORS.items()},
    "refuse": _refuse,
    "bad-gateway": _bad_gateway,
    "no-word": _no_word,
    "redirect": _redirect,
    "empty-body": _empty_body,
    "html-throttle": _html_throttle,
    "hang": _hang,
    "hang-body": _hang_body,
    "slow": _slow,
    "drip": _drip,
    "wrong-secret": _wrong_secret,
    "not-base64": _not_base64,
    "binary-secret": _binary_secret,
    "empty-secret": _empty_secret,
    "broken-body": _broken_body,
    "huge-body": _huge_body,
}


class Switch:
    """Says how the next request is treated, and counts for behaviours that end after some requests.

    With a file, the file says it: JSON with the fields of Behaviour, read again for each request; no file is
    `ok`. Each new writing starts the count anew. Replace it by renaming, or a request may meet half of it.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._behaviour = Behaviour()
        self._version: tuple[int, ...] = ()
        self._used = 0
        self._seconds: Counter[int] = Counter()

    def set(self, behaviour: Behaviour) -> None:
        """Choose the behaviour from now on."""
        with self._lock:
            self._choose(behaviour)

    def next(self, secret_name: str) -> Behaviour:
        """Return what befalls a request for a secret.

        Raises ValueError or TypeError for a file that says nothing sensible.
        """
        with self._lock:
            if self._file:
                self._read(self._file)
            behaviour = self._behaviour
            if behaviour.secret not in (None, secret_name):
                return Behaviour()
            if behaviour.times is not None and self._used >= behaviour.times:
                return Behaviour()
            self._used += 1
            if behaviour.rate:
                second = int(time.monotonic())
                self._seconds[second] += 1
                return Behaviour() if self._seconds[second] <= behaviour.rate else behaviour
            return behaviour

    def _choose(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._used = 0

    def _read(self, file: Path) -> None:
        try:
            with file.open() as stream:
                stat = os.fstat(stream.fileno())
                text = stream.read()
        except FileNotFoundError:
            self._version = ()
            self._choose(Behaviour())
            return
        version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if version != self._version:
            self._choose(parse(text))
            self._version = version


def parse(text: str) -> Behaviour:
    """Read a behaviour from JSON. Raises ValueError."""
    table = json.loads(text)
    known = {entry.name for entry in fields(Behaviour)}
    if not isinstance(table, dict) or not table.keys() <= known:
        raise ValueError(f"a behaviour is a JSON object with {', '.join(sorted(known))}, not {text!r}")
    return Behaviour(**table)


def _seconds(behaviour: Behaviour, default: float) -> float:
    return default if behaviour.seconds is None else behaviour.seconds


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

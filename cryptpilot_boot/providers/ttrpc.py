"""A client for one call over ttrpc: a request and its response on a unix socket.

The peer is a program of this machine. Its messages are checked all the same: only what the protocol defines is
accepted, and only up to its limits.

Source of the facts: containerd/ttrpc, PROTOCOL.md (version 1.2), and the messages Request, Response and Status of its
ttrpc.proto; Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.passphrase import SecretBuffer
    from cryptpilot_boot.system.wait import Deadline

_HEADER = struct.Struct(">IIBB")  # length of the data, stream, type of the message, flags
_REQUEST, _RESPONSE = 1, 2
_STREAM = 1  # clients use odd numbers; a connection here has one stream
_LONGEST_DATA = 4 << 20  # bytes
LONGEST = _HEADER.size + _LONGEST_DATA
"""Length of the longest message in bytes."""

# Types of fields, and the lengths of those with a fixed length, in bytes.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_LONGEST_VARINT = 10  # bytes
_CREDENTIALS = struct.Struct("3i")  # struct ucred, <sys/socket.h>: process, user, group

OK = 0
UNIMPLEMENTED = 12
"""Codes of a status."""


class Broken(Exception):
    """The peer broke the protocol."""


class Closed(Exception):
    """The peer closed the connection before its answer was complete."""


class TooLong(Exception):
    """The answer is longer than the protocol allows."""


class Refused(Exception):
    """The peer answered that the call failed. code: a status number of gRPC."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


@contextlib.contextmanager
def connected(path: str, deadline: Deadline) -> Iterator[socket.socket]:
    """Connect to a socket on which root or this user listens: the answer of another user is no key.

    Raises OSError, and PermissionError for another user.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        with _waiting(connection, deadline):
            connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(credentials)
        if user not in (0, os.geteuid()):
            raise PermissionError(f"user {user} listens there")
        yield connection


def call(
    connection: socket.socket, service: str, method: str, payload: bytes, buffer: SecretBuffer, deadline: Deadline
) -> memoryview:
    """Call a method; return the payload of its answer, which is a part of `buffer` and valid as long as that.

    buffer: takes LONGEST bytes. Raises Broken, Closed, TooLong, Refused, OSError; TimeoutError at the deadline.
    """
    request = (
        text(1, service.encode()) + text(2, method.encode()) + text(3, payload) + _number(4, int(deadline.left() * 1e9))
    )
    with _waiting(connection, deadline):
        connection.sendall(_HEADER.pack(len(request), _STREAM, _REQUEST, 0) + request)
    _receive(connection, buffer, _HEADER.size, deadline)
    length, stream, kind, flags = _HEADER.unpack(buffer.reveal())
    if (stream, kind, flags) != (_STREAM, _RESPONSE, 0):
        raise Broken
    if length > _LONGEST_DATA:
        raise TooLong
    _receive(connection, buffer, length, deadline)
    return _payload(buffer.reveal()[_HEADER.size :])


def text(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def held(message: memoryview, number: int) -> memoryview:
    """Return the bytes of a field of a message, empty if it is missing. Raises Broken."""
    return _bytes(_fields(message).get(number))


def _payload(response: memoryview) -> memoryview:
    """Return the payload of a Response: field 1 is its status, field 2 its payload."""
    fields = _fields(response)
    code = _fields(_bytes(fields.get(1))).get(1, OK)
    if not isinstance(code, int):
        raise Broken
    if code != OK:
        raise Refused(code)
    return _bytes(fields.get(2))


def _bytes(value: int | memoryview | None) -> memoryview:
    """Return the bytes of a field. A missing field is an empty one."""
    if isinstance(value, int):
        raise Broken
    return memoryview(b"") if value is None else value


def _fields(message: memoryview) -> dict[int, int | memoryview]:
    """Return the fields of a message by number. Raises Broken if a field is repeated."""
    found: dict[int, int | memoryview] = {}
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if kind == _VARINT:
            value, place = _read_varint(message, place)
        else:
            if kind == _BYTES:
                length, place = _read_varint(message, place)
            elif kind in _FIXED:
                length = _FIXED[kind]
            else:
                raise Broken
            value, place = message[place : place + length], place + length
            if place > len(message):
                raise Broken
        if number == 0 or number in found:
            raise Broken
        found[number] = value
    return found


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return a number of variable length, and the place after it."""
    value = 0
    for count, byte in enumerate(message[place : place + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, place + count + 1
    raise Broken


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))


def _receive(connection: socket.socket, buffer: SecretBuffer, count: int, deadline: Deadline) -> None:
    """Read exactly so many more bytes."""
    end = len(buffer.reveal()) + count
    while (left := end - len(buffer.reveal())) > 0:
        with _waiting(connection, deadline):
            connection.recv(1, socket.MSG_PEEK)  # this waits; `fill` reads the descriptor, and does not
        if not buffer.fill(connection.fileno(), left):
            raise Closed


@contextlib.contextmanager
def _waiting(connection: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Limit the waits of a socket by the deadline. Raises TimeoutError."""
    if deadline.over:
        raise TimeoutError  # a limit of 0 seconds would make the socket non-blocking
    connection.settimeout(deadline.left())
    try:
        yield
    except socket.timeout:  # TimeoutError since Python 3.10
        raise TimeoutError from None

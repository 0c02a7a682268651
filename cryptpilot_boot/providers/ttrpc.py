"""One call over ttrpc, as client: a request and its response on a unix socket.

The other side is a program of this machine, and held to the protocol all the same: of what it sends, nothing is taken
that the protocol does not have, and never more than the protocol allows.

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
_STREAM = 1  # those of clients are odd; a connection here has one
_LONGEST_DATA = 4 << 20  # bytes
LONGEST = _HEADER.size + _LONGEST_DATA
"""Bytes that the longest message takes."""

# Types of fields, and how long those of a fixed length are, in bytes.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_LONGEST_VARINT = 10  # bytes
_CREDENTIALS = struct.Struct("3i")  # struct ucred, <sys/socket.h>: process, user, group

OK = 0
UNIMPLEMENTED = 12
"""Codes of a status."""


class Broken(Exception):
    """What came is not what the protocol has."""


class Closed(Exception):
    """The other side closed the connection before its answer was whole."""


class TooLong(Exception):
    """The answer is longer than the protocol allows."""


class Refused(Exception):
    """The other side answered that the call failed. code: why, by the numbers of gRPC."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


@contextlib.contextmanager
def connected(path: str, deadline: Deadline) -> Iterator[socket.socket]:
    """Connect to a socket at which root listens, or this user: what another user says is no key.

    Raises OSError; PermissionError when it is another user.
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
    """Call a method and return the payload of its answer, which lies in `buffer` and lives as long as that.

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
    """Write a field that holds bytes, text or a message."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def held(message: memoryview, number: int) -> memoryview:
    """Return what a field that holds bytes has in a message; none when it is not there. Raises Broken."""
    return _bytes(_fields(message).get(number))


def _payload(response: memoryview) -> memoryview:
    """Take the payload out of a Response: its status is field 1, its payload field 2."""
    fields = _fields(response)
    code = _fields(_bytes(fields.get(1))).get(1, OK)
    if not isinstance(code, int):
        raise Broken
    if code != OK:
        raise Refused(code)
    return _bytes(fields.get(2))


def _bytes(value: int | memoryview | None) -> memoryview:
    """Return the bytes of a field: none where there is no field, which is how an empty one is written."""
    if isinstance(value, int):
        raise Broken
    return memoryview(b"") if value is None else value


def _fields(message: memoryview) -> dict[int, int | memoryview]:
    """Read the fields of a message by their numbers. No field of a message that is read here may be there twice."""
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
    """Return a number of variable length and the place after it."""
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
    """Read so many bytes more, and none after them."""
    end = len(buffer.reveal()) + count
    while (left := end - len(buffer.reveal())) > 0:
        with _waiting(connection, deadline):
            connection.recv(1, socket.MSG_PEEK)  # which waits, and a read that is no method of the socket's does not
        if not buffer.fill(connection.fileno(), left):
            raise Closed


@contextlib.contextmanager
def _waiting(connection: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Have what waits for the other side do so until the deadline. Raises TimeoutError."""
    if deadline.over:
        raise TimeoutError  # 0 seconds would mean that it does not wait, and something else is raised then
    connection.settimeout(deadline.left())
    try:
        yield
    except socket.timeout:  # which is TimeoutError from Python 3.10 on
        raise TimeoutError from None

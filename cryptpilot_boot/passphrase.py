"""The one type a passphrase travels in."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import TracebackType


class Passphrase:
    """Key material on its way from a key provider to cryptsetup's standard input.

    It lives in one buffer that is overwritten on `wipe` (or when a `with` block ends), shows itself nowhere and
    refuses to be pickled. `strong` says that the bytes are key material, so that key derivation need not stretch
    them.
    """

    __slots__ = ("_buffer", "strong")

    def __init__(self, secret: bytes | bytearray | memoryview, *, strong: bool) -> None:
        self._buffer = bytearray(secret)
        self.strong = strong

    def reveal(self) -> memoryview:
        """Return a view of the bytes; it must not be copied, nor outlive the passphrase."""
        return memoryview(self._buffer)

    def copy(self) -> Passphrase:
        """Return another one with the same bytes, for what outlives this one; its owner wipes it."""
        return Passphrase(self._buffer, strong=self.strong)

    def wipe(self) -> None:
        """Overwrite the bytes."""
        self._buffer[:] = bytes(len(self._buffer))

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a passphrase does not leave this process")

    def __enter__(self) -> Passphrase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()


class SecretBuffer:
    """Room for a secret of unknown length that is read from a descriptor; what it leaves behind is overwritten.

    limit: bytes it takes; it is `full` when there are more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray(min(_FIRST_BYTES, limit))
        self._length = 0
        self.full = False

    def fill(self, source: int, most: int) -> int:
        """Read what is there, at most so many bytes, and return how many; 0 at its end, and beyond the limit.

        read(2) writes into the buffer itself: no other copy is made in this process.
        """
        if self._length == len(self._buffer) < self._limit:
            self._grow()
        if self._length == self._limit:
            self.full = os.readv(source, [bytearray(1)]) > 0
            return 0
        with memoryview(self._buffer) as room, room[self._length : self._length + most] as rest:
            count = os.readv(source, [rest])
        self._length += count
        return count

    def _grow(self) -> None:
        smaller, self._buffer = self._buffer, bytearray(min(4 * len(self._buffer), self._limit))
        with memoryview(self._buffer) as room:
            room[: len(smaller)] = memoryview(smaller)
        smaller[:] = bytes(len(smaller))

    def reveal(self) -> memoryview:
        """Return a view of the bytes read; it must not be copied, nor outlive the buffer."""
        return memoryview(self._buffer)[: self._length]

    def wipe(self) -> None:
        """Overwrite the bytes."""
        self._buffer[:] = bytes(len(self._buffer))

    def __enter__(self) -> SecretBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()


_FIRST_BYTES = 4096  # of a SecretBuffer: what nearly all secrets fit in
MINIMUM_KEY_BYTES = 32


def is_key_material(secret: bytes | bytearray | memoryview) -> bool:
    """Tell whether `secret` is random key material rather than something a person typed.

    That is: at least 32 bytes, and not text. A person's words need an expensive derivation; 256 random bits
    need none (see docs/dev/decisions, as systemd-cryptenroll and clevis decide for their own random keys).
    """
    if len(secret) < MINIMUM_KEY_BYTES:
        return False
    # byte by byte: the text as a whole would be one more copy of the secret, and a str cannot be overwritten
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        is_text = all(_is_text(decoder.decode(secret[place : place + 1])) for place in range(len(secret)))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return True
    return not is_text


def _is_text(char: str) -> bool:
    """Tell whether a character, or none, is what a person types."""
    return char.isprintable() or char.isspace()

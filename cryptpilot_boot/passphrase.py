"""The one type a passphrase travels in."""

from __future__ import annotations

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

    def __init__(self, secret: bytes | bytearray, *, strong: bool) -> None:
        self._buffer = bytearray(secret)
        self.strong = strong

    def reveal(self) -> memoryview:
        """Return a view of the bytes; it must not be copied, nor outlive the passphrase."""
        return memoryview(self._buffer)

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


MINIMUM_KEY_BYTES = 32


def is_key_material(secret: bytes | bytearray) -> bool:
    """Tell whether `secret` is random key material rather than something a person typed.

    That is: at least 32 bytes, and not text. A person's words need an expensive derivation; 256 random bits
    need none (see docs/design.md, as systemd-cryptenroll and clevis decide for their own random keys).
    """
    if len(secret) < MINIMUM_KEY_BYTES:
        return False
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return not all(char.isprintable() or char.isspace() for char in text)

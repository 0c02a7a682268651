"""Errors, in words for the person who reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class CryptpilotError(Exception):
    """Something failed that a person has to know about.

    `what` says what was being done, to what, and why it failed; `hint` says what to do next. Neither ever holds
    a passphrase, a client key or its password.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class ConfigError(CryptpilotError):
    """A configuration file cannot be used as it is."""


class DeviceError(CryptpilotError):
    """A block device is not what the work at hand needs it to be."""


class ProgramError(CryptpilotError):
    """A system program (cryptsetup, mkfs, ...) failed."""

    def __init__(self, what: str, hint: str = "", *, status: int = 1) -> None:
        super().__init__(what, hint)
        self.status = status


class Interrupted(CryptpilotError):
    """A request to end this process: its work was stopped in good order."""

    def __init__(self) -> None:
        super().__init__("interrupted")


class KeyFetchError(CryptpilotError):
    """A key provider did not return the passphrase.

    `retryable` says whether asking again may help; `unreachable` says that the network itself was missing, so
    that a change of the network is a reason to ask again at once; `throttled` that too many ask at the same time.
    """

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        retryable: bool = False,
        unreachable: bool = False,
        throttled: bool = False,
    ) -> None:
        super().__init__(what, hint)
        self.retryable = retryable
        self.unreachable = unreachable
        self.throttled = throttled


class NoValue(KeyFetchError):
    """The secret is there, and has no value that can be used at the stage that was asked for."""


class WrongSecret(CryptpilotError):
    """No key slot of a volume takes a passphrase."""


def printable(text: str) -> str:
    """Make a text from elsewhere safe for a console: one line, and nothing a terminal obeys."""
    return "".join(char if char.isprintable() else " " for char in text)


def describe_bug(error: BaseException) -> str:
    """Say where an unforeseen exception came from, without its text, which may quote a value."""
    import traceback  # it loads much, and nearly no run needs it

    places = [f"{frame.f_code.co_name}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return f"internal error: {type(error).__name__} at {' > '.join(places[-4:])}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the one of `known` that may have been meant by a word, "" when none is like it."""
    import difflib  # as above

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")

"""Several sources of one key: which is asked when, and whose answer is tried first.

All are prepared at once while a boot waits for its network. The first is asked; the next one once all before it have
failed for good, or have been silent for as long as its file says. None is given up for another: what answers first is
tried first.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.errors import CryptpilotError, Interrupted, NoValue, describe_bug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.passphrase import Passphrase

Asked = Callable[[], "Passphrase"]
"""Asks until there is an answer, a final error, or a deadline is over; the passphrase is the caller's to wipe."""


def due(asked: Sequence[float | None], over: Sequence[bool], after: Sequence[float]) -> tuple[int, float] | None:
    """Return which source is asked next, and when; None when none is left to be asked. Pure.

    By source: asked: when it was, in seconds; over: whether it has failed for good, be it before it was asked; after:
    for how many seconds those before it may be silent, from when the last of them was asked that has not failed.
    """
    following = next((number for number, when in enumerate(asked) if when is None and not over[number]), None)
    if following is None:
        return None
    if all(over[:following]):
        return following, 0.0
    silent = [when for when, failed in zip(asked[:following], over) if when is not None and not failed]
    return following, max(silent) + after[following]


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One source. prepare: does what needs no network, and returns what asks. after: see `due`.

    passes_on: whether the source has another value to try where the service has none: that is no failure then.
    """

    prepare: Callable[[], Asked]
    after: float = 0.0
    passes_on: bool = False


Tell = Callable[[int, "dict[int, str]"], None]
"""Told which source is asked now, and what the failures were of those that have failed for good, by source."""


class Race:
    """The sources of one volume's key while they are asked; a `with` block ends with nothing of them left behind."""

    def __init__(
        self,
        entrants: Sequence[Entrant],
        tell: Tell = lambda *_: None,
        *,
        ahead: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the first source. A failure of that is one of the source.

        ahead: prepare the others beside it, since there is time: what is waited for is not there yet. Otherwise each is
        prepared when it has its turn, so as to cost nothing when it has none.
        """
        self._entrants = entrants
        self._ahead = ahead
        self._tell = tell
        self._clock = clock
        self._asked: list[float | None] = [None] * len(entrants)
        self._errors: dict[int, CryptpilotError] = {}
        self._answers: deque[tuple[int, Asked]] = deque()
        self._closed = False
        self._changed = threading.Condition()
        first = self._prepared(0)
        self._begin(0, lambda: first)
        for number in range(1, len(entrants)):
            self._begin(number, functools.partial(self._prepared, number))

    def next(self) -> tuple[int, Asked] | None:
        """Return the next answer: the number of its source, and what gives the passphrase or raises NoValue.

        None when there is none to come: all sources have failed for good, or none is asked any more. Raises
        Interrupted once that has ended one: then none of the others is asked in its place.
        """
        with self._changed:
            while not self._answers:
                if self._closed:
                    return None
                if any(isinstance(error, Interrupted) for error in self._errors.values()):
                    raise Interrupted
                over = [number in self._errors for number in range(len(self._entrants))]
                if all(over):
                    return None
                following = due(self._asked, over, [one.after for one in self._entrants])
                left = None if following is None else following[1] - self._clock()
                if following is not None and left is not None and left <= 0:
                    number = following[0]
                    self._asked[number] = self._clock()
                    self._tell(number, {failed: error.what for failed, error in self._errors.items()})
                    self._changed.notify_all()
                else:
                    self._changed.wait(left)
            return self._answers.popleft()

    def fail(self, number: int, error: CryptpilotError) -> None:
        """Note that a source's answer was of no use."""
        with self._changed:
            self._errors[number] = error

    @property
    def errors(self) -> dict[int, CryptpilotError]:
        """What became of the sources that failed for good, by number."""
        with self._changed:
            return dict(self._errors)

    def _prepared(self, number: int) -> Asked | CryptpilotError:
        try:
            return self._entrants[number].prepare()
        except CryptpilotError as error:
            return error
        except Exception as bug:
            return CryptpilotError(describe_bug(bug), "please report this")

    def _begin(self, number: int, prepare: Callable[[], Asked | CryptpilotError]) -> None:
        # daemon: one that waits for an answer must not keep the process from ending
        threading.Thread(target=self._run, args=[number, prepare], daemon=True).start()

    def _run(self, number: int, prepare: Callable[[], Asked | CryptpilotError]) -> None:
        if not self._ahead and not self._has_turn(number):
            return
        ask = prepare()
        if isinstance(ask, CryptpilotError):
            self._failed(number, ask)
            return
        if not self._has_turn(number):
            return
        try:
            passphrase = ask()
        except NoValue as error:
            if self._entrants[number].passes_on:
                self._arrived(number, _raising(error))
            else:
                self._failed(number, error)
        except CryptpilotError as error:
            self._failed(number, error)
        except Exception as bug:
            self._failed(number, CryptpilotError(describe_bug(bug), "please report this"))
        else:
            self._arrived(number, lambda: passphrase, passphrase)

    def _has_turn(self, number: int) -> bool:
        """Wait until a source is to be asked; False if that comes to nothing."""
        with self._changed:
            while self._asked[number] is None and not self._closed:
                self._changed.wait()
            return not self._closed

    def _arrived(self, number: int, answer: Asked, passphrase: Passphrase | None = None) -> None:
        with self._changed:
            if not self._closed:
                self._answers.append((number, answer))
                self._changed.notify_all()
            elif passphrase is not None:
                passphrase.wipe()

    def _failed(self, number: int, error: CryptpilotError) -> None:
        with self._changed:
            self._errors[number] = error
            self._changed.notify_all()

    def __enter__(self) -> Race:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Wipe what arrived and was not taken; what arrives later is wiped then."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            answers, self._answers = self._answers, deque()
        for _number, answer in answers:
            try:
                answer().wipe()
            except NoValue:
                continue


def _raising(error: CryptpilotError) -> Asked:
    def answer() -> Passphrase:
        raise error

    return answer

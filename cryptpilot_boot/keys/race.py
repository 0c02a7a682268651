"""Several sources of one key: when each is asked, and which answer is tried first.

While a boot waits for the network, all sources are prepared. The first one is asked at once. The next one is asked when
all before it have failed, or have not answered for as long as its file says. The sources before it are still waited
for. Answers are tried in the order in which they arrive.
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
"""Asks until there is an answer, a final error, or the deadline expires. The caller wipes the passphrase."""


def due(asked: Sequence[float | None], over: Sequence[bool], after: Sequence[float]) -> tuple[int, float] | None:
    """Return the source that is asked next, and when; None if every source was asked. Pure.

    Lists have an item for each source. asked: when it was asked, in seconds. over: whether it has failed, possibly
    before it was asked. after: how many seconds the sources before it may take, from when the last one of them was
    asked that has not failed.
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
    """One source.

    prepare: does what needs no network, and returns what asks. after: see `due`. passes_on: whether "no value" is no
    failure of the source, because it has a previous value to try.
    """

    prepare: Callable[[], Asked]
    after: float = 0.0
    passes_on: bool = False


Tell = Callable[[int, "dict[int, str]"], None]
"""Is given the source that is asked now, and the errors of the sources that have failed, by number."""


class Race:
    """The sources of one volume's key while they are asked. A `with` block ends by wiping all other answers."""

    def __init__(
        self,
        entrants: Sequence[Entrant],
        tell: Tell = lambda *_: None,
        *,
        ahead: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the first source. If that fails, the source has failed.

        ahead: prepare the other sources at the same time, for instance while the network comes up. Otherwise each is
        prepared when it is asked, and costs nothing if it is not.
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
        """Return the next answer: the number of its source, and what returns the passphrase or raises NoValue.

        None if all sources have failed, or asking has stopped. Raises Interrupted if an interruption ended one of them:
        no other source is asked then.
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
        """Note that the answer of a source could not be used."""
        with self._changed:
            self._errors[number] = error

    @property
    def errors(self) -> dict[int, CryptpilotError]:
        """The errors of the sources that have failed, by number."""
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
        # daemon: a thread that waits for an answer must not keep the process alive
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
        """Wait until a source is to be asked. Returns False if asking stops before."""
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
        """Wipe the answers that were not taken; later ones are wiped when they arrive."""
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

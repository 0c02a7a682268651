"""Several sources of one key: when each is asked, and in which order their answers are tried.

While a boot waits for the network, all sources are prepared. The first one is asked at once. The next one is asked when
all before it have failed, or have not answered for as long as its file says. The sources before it are still waited
for. Answers are tried in the order in which they arrive. A source whose current value opens nothing is asked for the
previous one. A key that a user typed is one more answer.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Callable, TypeVar

from cryptpilot_boot.errors import CryptpilotError, Interrupted, NoValue, WrongSecret, describe_bug
from cryptpilot_boot.passphrase import Passphrase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")
Asked = Callable[[], Passphrase]
"""Asks until there is an answer, a final error, or the deadline expires. The caller wipes the passphrase."""
Prepare = Callable[[], Asked]
"""Does what needs no network, and returns what asks."""


class Value(enum.Enum):
    """Which value of a secret an answer is, or that a user typed the key."""

    CURRENT = enum.auto()
    PREVIOUS = enum.auto()
    TYPED = enum.auto()


@dataclasses.dataclass(frozen=True)
class Answer:
    """A key that may open the volume. source: its number; None for a key that was typed or known before."""

    passphrase: Passphrase
    value: Value = Value.CURRENT
    source: int | None = None


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One source. after: see `due`. previous: prepares the question for the previous value, if there is one."""

    prepare: Prepare
    after: float = 0.0
    previous: Prepare | None = None


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a source opened nothing: with the current value of its secret, and with the previous one if it was asked."""

    current: CryptpilotError
    previous: CryptpilotError | None = None

    @property
    def last(self) -> CryptpilotError:
        """What went wrong last."""
        return self.previous or self.current


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
class Turn:
    """A source is asked from now on, be it the first one. failures: of the sources that have failed by then."""

    source: int
    failures: Mapping[int, Failure]


class Race:
    """The sources of one volume's key, and what they answer.

    since: when an answer was first waited for, by the clock; None before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.since: float | None = None
        self._clock = clock
        self._entrants: Sequence[Entrant] = ()
        self._asked: list[float | None] = []
        self._failures: dict[int, Failure] = {}
        self._answers: deque[Answer] = deque()
        self._useless: dict[int, CryptpilotError] = {}  # current values, by the number of the source: why
        self._key_expected = False
        self._stopped = False
        self._changed = threading.Condition()

    def start(self, entrants: Sequence[Entrant], *, ahead: bool) -> None:
        """Prepare the first source. If that fails, the source has failed.

        ahead: prepare the other sources at the same time, for instance while the network comes up. Otherwise each is
        prepared when it is asked, and costs nothing if it is not.
        """
        self._entrants = entrants
        self._asked = [None] * len(entrants)
        first = _result_of(entrants[0].prepare)
        if isinstance(first, CryptpilotError):
            self._failures[0] = Failure(first)
        else:
            self._begin(0, lambda: first, ahead=ahead)
        for number, entrant in enumerate(entrants[1:], 1):
            self._begin(number, functools.partial(_result_of, entrant.prepare), ahead=ahead)

    def next(self) -> Answer | Turn | None:
        """Return the next answer, or which source is asked now; None if all sources have failed.

        Raises Interrupted if asking was stopped, or an interruption ended a source: no other is asked then.
        """
        with self._changed:
            self._begun()
            while not self._answers:
                if self._stopped:
                    raise Interrupted
                if any(isinstance(failure.last, Interrupted) for failure in self._failures.values()):
                    raise Interrupted
                if all(self._over()):
                    return None
                following = due(self._asked, self._over(), [one.after for one in self._entrants])
                left = None if following is None else following[1] - self._clock()
                if following is not None and left is not None and left <= 0:
                    number = following[0]
                    self._asked[number] = self._clock()
                    self._changed.notify_all()
                    return Turn(number, dict(self._failures))
                self._changed.wait(left)
            return self._answers.popleft()

    def reject(self, answer: Answer, error: CryptpilotError) -> None:
        """Note that an answer does not open the volume: its source is asked for the previous value, or has failed."""
        if answer.source is None:
            raise error
        self._refuse(answer.source, error)

    @property
    def failures(self) -> dict[int, Failure]:
        """Why sources have failed, by number."""
        with self._changed:
            return dict(self._failures)

    @property
    def useless(self) -> dict[int, CryptpilotError]:
        """Why sources were asked for the previous value, by number."""
        with self._changed:
            return dict(self._useless)

    @property
    def failed(self) -> bool:
        """Whether all sources have failed; not before they are started."""
        with self._changed:
            return bool(self._entrants) and all(self._over())

    def now(self) -> float:
        """Return the time by the clock of `since`."""
        return self._clock()

    def expect_key(self) -> None:
        """Let a user type the key: `typed` waits for it from now on."""
        self._key_expected = True

    def expect_no_key(self) -> None:
        """Have `typed` wait no longer."""
        with self._changed:
            self._key_expected = False
            self._changed.notify_all()

    @property
    def key_expected(self) -> bool:
        """Whether a user may still type the key."""
        return self._key_expected

    def offer(self, key: Passphrase) -> None:
        """Give a key that a user typed; the race, or who takes the answer, wipes it."""
        self._arrived(Answer(key, Value.TYPED))

    def typed(self) -> Answer | None:
        """Wait for an answer once all sources have failed; None if no user is asked for the key any longer.

        Raises Interrupted if asking was stopped.
        """
        with self._changed:
            self._begun()
            while not self._answers:
                if self._stopped:
                    raise Interrupted
                if not self._key_expected:
                    return None
                self._changed.wait()
            return self._answers.popleft()

    def stop(self) -> None:
        """Ask no further source, and wipe the answers that were not taken; later ones are wiped when they arrive."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            answers, self._answers = self._answers, deque()
        for answer in answers:
            answer.passphrase.wipe()

    def _begun(self) -> None:
        if self.since is None:
            self.since = self._clock()

    def _over(self) -> list[bool]:
        return [number in self._failures for number in range(len(self._entrants))]

    def _begin(self, number: int, prepare: Callable[[], Asked | CryptpilotError], *, ahead: bool) -> None:
        # daemon: a thread that waits for an answer must not keep the process alive
        threading.Thread(target=self._run, args=[number, prepare, ahead], daemon=True).start()

    def _run(self, number: int, prepare: Callable[[], Asked | CryptpilotError], ahead: bool) -> None:
        if not ahead and not self._has_turn(number):
            return
        ask = prepare()
        if isinstance(ask, CryptpilotError):
            # whatever it is: nothing asks such a source for its previous value
            with self._changed:
                self._failures[number] = Failure(ask)
                self._changed.notify_all()
        elif self._has_turn(number):
            self._ask(number, ask)

    def _ask(self, number: int, ask: Asked) -> None:
        self._put(number, Value.CURRENT, ask)
        prepare = self._entrants[number].previous
        if prepare is not None and self._needs_previous(number):
            self._put(number, Value.PREVIOUS, lambda: prepare()())

    def _put(self, number: int, value: Value, ask: Asked) -> None:
        passphrase = _result_of(ask)
        if isinstance(passphrase, CryptpilotError):
            self._refuse(number, passphrase)
        else:
            self._arrived(Answer(passphrase, value, number))

    def _needs_previous(self, number: int) -> bool:
        """Wait until the current value of a source's secret was tried. Returns whether the previous one is wanted."""
        with self._changed:
            while not (number in self._useless or number in self._failures or self._stopped):
                self._changed.wait()
            return number in self._useless and not self._stopped

    def _has_turn(self, number: int) -> bool:
        """Wait until a source is to be asked. Returns False if asking stops before."""
        with self._changed:
            while self._asked[number] is None and not self._stopped:
                self._changed.wait()
            return not self._stopped

    def _arrived(self, answer: Answer) -> None:
        with self._changed:
            if self._stopped:
                answer.passphrase.wipe()
            else:
                self._answers.append(answer)
                self._changed.notify_all()

    def _refuse(self, number: int, error: CryptpilotError) -> None:
        """Note why a value of a source's secret cannot be had, or opens nothing."""
        with self._changed:
            useless = self._useless.get(number)
            if useless is not None:
                self._failures[number] = Failure(useless, error)
            elif self._entrants[number].previous and isinstance(error, (NoValue, WrongSecret)):
                self._useless[number] = error
            else:
                self._failures[number] = Failure(error)
            self._changed.notify_all()


def _result_of(work: Callable[[], T]) -> T | CryptpilotError:
    """Return what `work` returns, or why it failed."""
    try:
        return work()
    except CryptpilotError as error:
        return error
    except Exception as bug:
        return CryptpilotError(describe_bug(bug), "please report this")

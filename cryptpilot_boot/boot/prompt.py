"""A user at the console is one more source of a volume's key, beside those of its file, once these are silent.

The first answer opens the volume. A user may type the volume's recovery key, or any passphrase that a key slot of its
header takes; it has to pass the same checks as for `open --recovery-key`. Only a volume that is bound to its disk is
asked for: an attacker at the console may have the disk as well, put another volume there, and type its passphrase.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Callable, Generic, TypeVar

from cryptpilot_boot import log, steps, volume
from cryptpilot_boot.errors import CryptpilotError, Interrupted, describe_bug
from cryptpilot_boot.keys import recovery
from cryptpilot_boot.system import network, person

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.wait import Deadline

SILENCE = 5.0
"""Seconds without an answer after which a user is asked, counted from when there is a network. A healthy boot takes
one, and asks no user."""
WITHOUT_NETWORK = 15.0
"""Seconds without a network after which a user is asked. DHCP takes some."""
_LOOK = 0.5  # seconds between two checks of a state that announces no change
_PAUSE = 5.0  # seconds after a prompt that could not be shown, or was cancelled
_AGAIN = 1.0  # seconds after an answer that opens nothing: the host has the console, and types as fast as it likes
_GONE = 6.0  # seconds that a prompt may take to go away; see system.run, which gives a program 5

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Sources:
    """The state of a volume's key providers; times in seconds, of one clock.

    asked: since when they are asked, None before. online: since when there is a network, None before. failed: whether
    all of them have failed for good.
    """

    asked: float | None = None
    online: float | None = None
    failed: bool = False


def due(sources: Sources) -> float | None:
    """Return when to ask a user, by the clock of `sources`; None as long as no provider was asked. Pure."""
    if sources.asked is None:
        return None
    if sources.failed:
        return sources.asked
    if sources.online is None:
        return sources.asked + WITHOUT_NETWORK
    return max(sources.asked, sources.online) + SILENCE


class Typed(CryptpilotError):
    """A user was faster than the key providers."""


class Person:
    """The user who may be asked for the key of one volume while its key providers are.

    wanted: returns whether the boot can use an answer now; endless: whether it waits for one without a limit. Both are
    called again and again, on any thread. clock, ask: other ones for a test; see `system.person.ask`.
    """

    def __init__(
        self,
        one: Volume,
        wanted: Callable[[], bool],
        endless: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        ask: Callable[[str, str, person.Dismissal], Passphrase | None] = person.ask,
    ) -> None:
        self._one = one
        self._wanted = wanted
        self._endless = endless
        self._clock = clock
        self._ask = ask
        self._sources = Sources()
        self._key: Passphrase | None = None
        self._over = False
        self._mute = one.identity is None
        self._changed = threading.Condition()
        self._dismissal = person.Dismissal()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @property
    def endless(self) -> bool:
        """Whether the boot waits for this user without a limit."""
        return not self._mute and self._endless()

    def first_of(self, ask: Callable[[], T], wipe: Callable[[T], object]) -> T:
        """Return what `ask` returns, or raise what it raises; raise Typed if the user was faster.

        wipe: called with what `ask` returns too late. Raises Interrupted once dismissed.
        """
        self._note(asked=self._clock())
        answer = _Answer(ask, wipe, self._changed)
        with self._changed:
            while not (answer.done or self._key or self._over):
                self._changed.wait()
            if answer.done:
                return answer.take()
            answer.unwanted = True
            if self._over:
                raise Interrupted
        raise Typed("a key was typed on the console")

    def key(self, error: CryptpilotError | None, deadline: Deadline) -> Passphrase:
        """Return the key that was typed and that opens the volume; the caller wipes it.

        error: why no key provider gives one; raised at the deadline, unless the wait is endless. Raises Interrupted
        once dismissed.
        """
        if error:
            self._note(asked=self._clock(), failed=True)
        with self._changed:
            while self._key is None:
                if self._over:
                    raise Interrupted
                if error and deadline.over and not self.endless:
                    raise error
                self._changed.wait(_LOOK)
            key, self._key = self._key, None
            return key

    def dismiss(self) -> None:
        """Withdraw the prompt for good. Does not wait until it has disappeared."""
        with self._changed:
            if not self._over:
                self._over = True
                self._dismissal.dismiss()
                self._changed.notify_all()

    def await_end(self) -> None:
        """Wait until the prompt has disappeared, once dismissed."""
        if self._thread.ident is not None:
            self._thread.join(_GONE)

    def __enter__(self) -> Person:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        self.await_end()
        if self._key:
            self._key.wipe()

    def _note(self, *, asked: float, failed: bool = False) -> None:
        with self._changed:
            first = self._sources.asked
            online = self._sources.online if self._one.needs_network else asked
            self._sources = Sources(asked if first is None else first, online, failed)
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            if self._becomes_due():
                self._ask_until_it_opens()
        except Interrupted:
            return  # the process is to end, and what waits for the key ends by itself
        except Exception as bug:
            self._mute = True  # or the boot would wait forever for an answer to no question
            self._tell(f"{self._one.volume}: its key cannot be asked for on the console: {describe_bug(bug)}")

    def _becomes_due(self) -> bool:
        """Wait until a user is to be asked; False once dismissed."""
        while not self._over:
            if self._one.needs_network and self._sources.online is None and network.has_route():
                with self._changed:
                    self._sources = dataclasses.replace(self._sources, online=self._clock())
            moment = due(self._sources)
            if moment is not None and self._clock() >= moment and self._wanted():
                return True
            with self._changed:
                if not self._over:
                    self._changed.wait(_LOOK)
        return False

    def _ask_until_it_opens(self) -> None:
        name = self._one.volume
        if self._mute:
            self._tell(
                f"{name}: its key is not asked for on the console: it is not bound to its disk, so that any"
                f" passphrase might open any disk; cryptpilot bind {name}, then cryptpilot initrd rebuild"
            )
            return
        # before the question, which is what stands on the console last
        self._tell(f"{name}: its key has not come; type its recovery key or a passphrase, or wait")
        question = f"Recovery key or passphrase of volume {name}"
        wrong = ""
        while not self._over:
            try:
                with log.timed(steps.PROMPT, name) as facts:
                    typed = self._ask(f"{wrong}{question}", f"cryptpilot:{name}", self._dismissal)
                    facts["result"] = "dismissed" if typed is None else "typed"
            except person.NoWay as error:
                self._mute = True
                self._tell(f"{name}: its key cannot be asked for on the console: {error.what}; {error.hint}")
                return
            except Interrupted:
                raise
            except CryptpilotError as error:
                self._tell(f"{name}: the prompt for its key was left: {error.what}")
                self._rest(_PAUSE)
                continue
            if typed is None:
                return
            with typed:
                wrong = self._try(typed)
            self._rest(_AGAIN)

    def _try(self, typed: Passphrase) -> str:
        """Keep what was typed if it opens the volume; else return the text to put before the next question."""
        if not len(typed):
            return ""
        try:
            key = opening_key(self._one, typed)
        except Interrupted:
            raise
        except CryptpilotError as error:
            self._tell(f"{self._one.volume}: {error.what}")
            return f"{error.what}. "
        with self._changed:
            if self._over:
                key.wipe()
            else:
                self._key = key
            self._changed.notify_all()
            while self._key and not self._over:  # until it is taken
                self._changed.wait(_LOOK)
        self._over = True
        return ""

    def _rest(self, seconds: float) -> None:
        with self._changed:
            if not self._over:
                self._changed.wait(seconds)

    def _tell(self, notice: str) -> None:
        log.emit(steps.PROMPT, volume=self._one.volume, facts={"notice": notice})


def opening_key(one: Volume, typed: Passphrase) -> Passphrase:
    """Return the key that was typed, once a key slot of the volume has taken it; nothing is opened.

    A recovery key may be written in any way that `keys.recovery.parse` knows. Raises CryptpilotError, which quotes
    nothing.
    """
    slip: CryptpilotError | None = None
    try:
        key = recovery.parse(typed.reveal())
    except CryptpilotError as error:
        slip, key = error, typed.copy()
    try:
        volume.verify(one, key.copy)
    except volume.WrongSecret:
        key.wipe()
        if slip and recovery.resembles(typed.reveal()):
            raise slip from None
        raise CryptpilotError(f"wrong key: no key slot of {one.dev} takes it") from None
    except CryptpilotError:
        key.wipe()
        raise
    return key


class _Answer(Generic[T]):
    """What `ask` returns or raises, on a thread of its own. done, unwanted: to be read with `changed` held."""

    def __init__(self, ask: Callable[[], T], wipe: Callable[[T], object], changed: threading.Condition) -> None:
        self.done = False
        self.unwanted = False
        self._ask = ask
        self._wipe = wipe
        self._changed = changed
        self._found: list[T] = []
        self._error: BaseException | None = None
        # daemon: one that hangs must not keep the process from ending
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            self._found.append(self._ask())
        except BaseException as error:
            self._error = error
        with self._changed:
            self.done = True
            self._changed.notify_all()
            if self.unwanted:
                for found in self._found:
                    self._wipe(found)

    def take(self) -> T:
        if self._error:
            raise self._error
        return self._found[0]

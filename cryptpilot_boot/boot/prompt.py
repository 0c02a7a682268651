"""A user at the console is one more source of a volume's key, beside those of its file, once these are silent.

The first answer opens the volume. A user may type the volume's recovery key, or any passphrase that a key slot of its
header takes; it has to pass the same checks as for `open --recovery-key`. Only a volume that is bound to its disk is
asked for: an attacker at the console may have the disk as well, put another volume there, and type its passphrase.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from cryptpilot_boot import log, steps, volume
from cryptpilot_boot.errors import CryptpilotError, Interrupted, describe_bug
from cryptpilot_boot.keys import recovery
from cryptpilot_boot.keys.secret import Known
from cryptpilot_boot.system import network, person

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.race import Race
    from cryptpilot_boot.passphrase import Passphrase

SILENCE = 5.0
"""Seconds without an answer after which a user is asked, counted from when there is a network. A healthy boot takes
one, and asks no user."""
WITHOUT_NETWORK = 15.0
"""Seconds without a network after which a user is asked. DHCP takes some."""
PAUSE = 5.0
"""Seconds after a prompt that could not be shown, or was cancelled."""
AGAIN = 1.0
"""Seconds after an answer that opens nothing: the host has the console, and types as fast as it likes."""
_GONE = 6.0  # seconds that a prompt may take to go away; see system.run, which gives a program 5


@dataclasses.dataclass(frozen=True)
class Wait:
    """How long a volume's key providers have been asked; times in seconds, of one clock.

    asked: since when they are asked, None before. online: since when there is a network, None before. failed: whether
    all of them have failed for good.
    """

    asked: float | None = None
    online: float | None = None
    failed: bool = False


def due(wait: Wait) -> float | None:
    """Return when to ask a user, by the clock of `wait`; None as long as no provider was asked. Pure."""
    if wait.asked is None:
        return None
    if wait.failed:
        return wait.asked
    if wait.online is None:
        return wait.asked + WITHOUT_NETWORK
    return max(wait.asked, wait.online) + SILENCE


class Prompt:
    """The question for the key of one volume. A key that opens the volume takes part in the race of its sources.

    The race waits for it from the beginning, until the prompt is dismissed or no user can be asked.
    """

    def __init__(self, one: Volume, race: Race) -> None:
        self._one = one
        self._race = race
        self._online: float | None = None
        self._over = False
        self._changed = threading.Condition()
        self._dismissal = person.Dismissal()
        self._thread = threading.Thread(target=self._work, daemon=True)
        race.expect_key()

    @property
    def may_be_answered(self) -> bool:
        """Whether a user is asked, or will be."""
        return self._race.key_expected and self._one.identity is not None

    def is_due(self) -> bool:
        """Return whether to ask a user now. Call it again and again: it notes when the network came up."""
        if self._over or self._thread.ident is not None:
            return False
        try:
            return self._is_silent()
        except Exception as bug:
            self._break_off(bug)
            return False

    def begin(self) -> None:
        """Ask a user, on a thread of its own."""
        try:
            self._thread.start()
        except RuntimeError as error:  # there can be no further thread
            self._break_off(error)

    def _is_silent(self) -> bool:
        if self._online is None and (not self._one.needs_network or network.has_route()):
            self._online = self._race.now()
        moment = due(Wait(self._race.since, self._online, self._race.failed))
        return moment is not None and self._race.now() >= moment

    def dismiss(self) -> None:
        """Withdraw the prompt for good. Does not wait until it has disappeared."""
        with self._changed:
            if not self._over:
                self._over = True
                self._dismissal.dismiss()
                self._changed.notify_all()
        self._race.expect_no_key()

    def await_end(self) -> None:
        """Wait until the prompt has disappeared, once dismissed."""
        if self._thread.ident is not None:
            self._thread.join(_GONE)

    def _work(self) -> None:
        try:
            if self._offers_key():
                return
        except Interrupted:
            return  # the process is to end: that no key was typed is no failure of the volume
        except Exception as bug:
            self._break_off(bug)
        self._race.expect_no_key()  # or the boot would wait forever for an answer to no question

    def _break_off(self, bug: Exception) -> None:
        """Ask no user because of an error that is no other volume's."""
        self._tell(f"{self._one.volume}: its key cannot be asked for on the console: {describe_bug(bug)}")
        self.dismiss()

    def _offers_key(self) -> bool:
        """Ask until a key opens the volume. Returns False if no user is asked any longer."""
        name = self._one.volume
        if self._one.identity is None:
            self._tell(
                f"{name}: its key is not asked for on the console: it is not bound to its disk, so that any"
                f" passphrase might open any disk; cryptpilot bind {name}, then cryptpilot initrd rebuild"
            )
            return False
        # before the question, which is what stands on the console last
        self._tell(f"{name}: its key has not come; type its recovery key or a passphrase, or wait")
        question = f"Recovery key or passphrase of volume {name}"
        wrong = ""
        while not self._over:
            try:
                with log.timed(steps.PROMPT, name) as facts:
                    typed = person.ask(f"{wrong}{question}", f"cryptpilot:{name}", self._dismissal)
                    facts["result"] = "dismissed" if typed is None else "typed"
            except person.NoWay as error:
                self._tell(f"{name}: its key cannot be asked for on the console: {error.what}; {error.hint}")
                return False
            except Interrupted:
                raise
            except CryptpilotError as error:
                self._tell(f"{name}: the prompt for its key was left: {error.what}")
                self._rest(PAUSE)
                continue
            if typed is None:
                return False
            with typed:
                key, wrong = self._tried(typed)
            if key:
                self._race.offer(key)
                return True
            self._rest(AGAIN)
        return False

    def _tried(self, typed: Passphrase) -> tuple[Passphrase | None, str]:
        """Return the key if it opens the volume, else the text to put before the next question."""
        if not len(typed):
            return None, ""
        try:
            return opening_key(self._one, typed), ""
        except Interrupted:
            raise
        except CryptpilotError as error:
            self._tell(f"{self._one.volume}: {error.what}")
            return None, f"{error.what}. "

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
        volume.verify(one, Known(key))
    except volume.WrongSecret:
        key.wipe()
        if slip and recovery.resembles(typed.reveal()):
            raise slip from None
        raise CryptpilotError(f"wrong key: no key slot of {one.dev} takes it") from None
    except CryptpilotError:
        key.wipe()
        raise
    return key

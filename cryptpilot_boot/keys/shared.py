"""One request for each secret, however many volumes share it."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.keys.retry import ask_until
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from types import TracebackType

    from cryptpilot_boot.config import Encrypt
    from cryptpilot_boot.providers.provider import Ask
    from cryptpilot_boot.system.wait import Deadline


@dataclasses.dataclass
class _Answer:
    """The answer of a key provider, once `there` is set.

    first: the volume that it was asked for. seconds: how long it was asked at most. late: whether that time expired
    with an error.
    """

    first: str
    seconds: float
    late: bool = False
    there: threading.Event = dataclasses.field(default_factory=threading.Event)
    passphrase: Passphrase | None = None
    error: CryptpilotError | None = None

    def is_void(self, deadline: Deadline) -> bool:
        """Tell whether the time was too short for an answer, and a later deadline allows a new try."""
        return self.late and self.seconds < deadline.total and not deadline.over


class Answers:
    """The answers of key providers, kept for the volumes that share a secret until a `with` block ends.

    Volumes share a secret if their sources are equal. A one-time password is never shared.
    """

    def __init__(self) -> None:
        self._answers: dict[Encrypt, _Answer] = {}
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, encrypt: Encrypt, ask: Ask, deadline: Deadline, volume: str) -> Passphrase:
        """Ask as `keys.ask_until` does, or wait for the answer to an earlier request for the same secret.

        The caller wipes the passphrase. Raises the error of the request. But if the earlier request had less time, and
        that time expired, this asks again.
        """
        if table.of(encrypt).one_time:
            return ask_until(ask, deadline, volume)
        while True:
            with self._lock:
                known = self._answers.get(encrypt)
                mine = known is None or known.is_void(deadline)
                answer = _Answer(volume, deadline.total) if known is None or mine else known
                self._answers[encrypt] = answer
            if mine:
                self._obtain(answer, ask, deadline)
            elif not answer.there.is_set():
                waiting_for = f"the secret it shares with {answer.first}"
                log.emit(log.FETCH_KEY, "wait", volume=volume, facts={"waiting_for": waiting_for})
                answer.there.wait()
            if answer.passphrase is not None:
                return answer.passphrase.copy()
            if mine or not answer.is_void(deadline):
                raise answer.error or KeyFetchError("the key provider gave no answer")

    def _obtain(self, answer: _Answer, ask: Ask, deadline: Deadline) -> None:
        try:
            passphrase = ask_until(ask, deadline, answer.first)
            with self._lock:
                if self._closed:  # the volume has its key from another source by now
                    passphrase.wipe()
                answer.passphrase = passphrase
        except CryptpilotError as error:
            answer.error, answer.late = error, deadline.over
        finally:
            answer.there.set()  # also after a bug: other threads wait for it

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            for answer in self._answers.values():
                if answer.passphrase is not None:
                    answer.passphrase.wipe()

"""One secret is asked for once, however many volumes share it."""

from __future__ import annotations

import contextlib
import math
import threading
import time

import pytest

from cryptpilot_boot import log
from cryptpilot_boot.config import Encrypt, Exec, Kms, Otp
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.keys import Answers, Passphrase
from cryptpilot_boot.system.wait import Deadline

KMS = Kms("kst-1", "secret", "{}", "password", "pem")
OTHER = Kms("kst-1", "another secret", "{}", "password", "pem")


class Provider:
    """Counts how often it is asked, and answers when it is let."""

    def __init__(self, error: CryptpilotError | None = None) -> None:
        self.asked = 0
        self.may_answer = threading.Event()
        self._error = error

    def ask(self, _: float) -> Passphrase:
        self.asked += 1
        assert self.may_answer.wait(20)
        if self._error:
            raise self._error
        return Passphrase(bytes([self.asked]) * 32, strong=True)


def ask_for(encrypts: dict[str, Encrypt], provider: Provider) -> dict[str, Passphrase | CryptpilotError]:
    """Ask for several volumes at once; the provider answers as soon as all have asked who will."""
    results: dict[str, Passphrase | CryptpilotError] = {}
    waiting = threading.Semaphore(0)

    def listen(event: log.Event) -> None:
        if event.phase == "wait" and event.volume in encrypts:
            waiting.release()

    with log.subscribed(listen), Answers() as answers:

        def ask(name: str) -> None:
            try:
                passphrase = answers.ask(encrypts[name], provider.ask, Deadline(20), name)
                results[name] = Passphrase(passphrase.reveal(), strong=passphrase.strong)
            except CryptpilotError as error:
                results[name] = error

        threads = [threading.Thread(target=ask, args=[name], daemon=True) for name in encrypts]
        for thread in threads:
            thread.start()
        for _ in range(len(encrypts) - len(set(encrypts.values()))):
            assert waiting.acquire(timeout=20)
        provider.may_answer.set()
        for thread in threads:
            thread.join(20)
    return results


def test_volumes_with_one_secret_ask_once() -> None:
    provider = Provider()
    results = ask_for({"shared-a": KMS, "shared-b": KMS, "shared-c": KMS}, provider)
    assert provider.asked == 1
    assert {bytes(one.reveal()) for one in results.values() if isinstance(one, Passphrase)} == {b"\1" * 32}
    assert len(results) == 3


def test_another_secret_is_asked_for_by_itself() -> None:
    provider = Provider()
    ask_for({"own-a": KMS, "own-b": OTHER, "own-c": Exec("cat"), "own-d": Exec("cat", ("x",))}, provider)
    assert provider.asked == 4


def test_a_failure_is_everybodys() -> None:
    provider = Provider(KeyFetchError("no"))
    results = ask_for({"failed-a": KMS, "failed-b": KMS}, provider)
    assert provider.asked == 1
    assert [str(one) for one in results.values()] == ["no", "no"]


def test_who_has_more_time_asks_again() -> None:
    """The boot waits for a person as long as it takes, and the provider is asked as long."""
    comes_back = threading.Event()

    def ask(_: float) -> Passphrase:
        if comes_back.is_set():
            return Passphrase(b"x" * 32, strong=True)
        raise KeyFetchError("does not answer", retryable=True)

    with Answers() as answers:

        def ask_first() -> None:
            with contextlib.suppress(KeyFetchError):
                answers.ask(KMS, ask, Deadline(0.5), "not-needed")
            comes_back.set()

        first = threading.Thread(target=ask_first)
        first.start()
        while KMS not in answers._answers:
            time.sleep(0.01)
        with answers.ask(KMS, ask, Deadline(math.inf), "root") as passphrase:
            assert len(passphrase) == 32
        first.join()


def test_who_has_as_much_time_does_not() -> None:
    provider = Provider(KeyFetchError("does not answer", retryable=True))
    provider.may_answer.set()
    with Answers() as answers:
        for _ in range(3):
            with pytest.raises(KeyFetchError):
                answers.ask(KMS, provider.ask, Deadline(0), "one")
    assert provider.asked == 1


def test_a_one_time_password_is_nobody_elses() -> None:
    provider = Provider()
    provider.may_answer.set()
    with Answers() as answers:
        for name in ("otp-a", "otp-b"):
            answers.ask(Otp(), provider.ask, Deadline(20), name)
    assert provider.asked == 2


def test_what_was_kept_is_wiped_in_the_end() -> None:
    kept: list[Passphrase] = []

    def ask(_: float) -> Passphrase:
        kept.append(Passphrase(b"x" * 32, strong=True))
        return kept[0]

    with Answers() as answers:
        own = answers.ask(KMS, ask, Deadline(20), "wiped")
        assert bytes(kept[0].reveal()) == b"x" * 32
    assert bytes(kept[0].reveal()) == bytes(32)
    assert bytes(own.reveal()) == b"x" * 32


def test_a_bug_leaves_nobody_waiting() -> None:
    def ask(_: float) -> Passphrase:
        raise ZeroDivisionError

    with Answers() as answers:
        with pytest.raises(ZeroDivisionError):
            answers.ask(KMS, ask, Deadline(20), "bug")
        with pytest.raises(KeyFetchError, match="gave no answer"):
            answers.ask(KMS, ask, Deadline(20), "next")

"""A try that takes for ever is left behind, and what it gets after all is wiped."""

from __future__ import annotations

import math
import threading
import time

import pytest

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import limit

LATE = KeyFetchError("too slow", retryable=True)


def test_what_is_there_in_time_is_returned() -> None:
    with limit.within(60, lambda: Passphrase(b"secret", strong=True), LATE) as passphrase:
        assert bytes(passphrase.reveal()) == b"secret"


def test_a_wait_may_have_no_end() -> None:
    """While the boot waits for a user, the sources have no deadline."""

    def ask() -> Passphrase:
        time.sleep(0.2)  # an answer that is there at once is not waited for
        return Passphrase(b"secret", strong=True)

    with limit.within(math.inf, ask, LATE) as passphrase:
        assert bytes(passphrase.reveal()) == b"secret"


def test_what_goes_wrong_in_time_is_raised() -> None:
    def ask() -> Passphrase:
        raise KeyFetchError("no permission")

    with pytest.raises(KeyFetchError, match="no permission"):
        limit.within(60, ask, LATE)


def test_a_passphrase_that_comes_too_late_is_wiped() -> None:
    go_on = threading.Event()
    passphrase = Passphrase(b"secret", strong=True)

    def ask() -> Passphrase:
        go_on.wait(60)
        return passphrase

    with pytest.raises(KeyFetchError, match="too slow"):
        limit.within(0.05, ask, LATE)
    assert bytes(passphrase.reveal()) == b"secret"
    (thread,) = [thread for thread in threading.enumerate() if thread.name == limit.THREAD]
    go_on.set()
    thread.join(60)
    assert bytes(passphrase.reveal()) == bytes(6)

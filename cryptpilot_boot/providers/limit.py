"""A time limit for a whole try: libraries limit each wait, and there may be many waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from cryptpilot_boot.errors import KeyFetchError
    from cryptpilot_boot.passphrase import Passphrase

CONNECT_TIMEOUT = 5.0
"""Seconds to connect; inside a VPC an answer takes milliseconds."""
# A try must not use all of the time: a second one may reach a gateway that the first did not.
LONGEST_TRY = 15.0
"""Seconds that a try may wait for answers."""
THREAD = "asks for a key"


def of_a_try(timeout: float) -> float:
    """Return the time limit of a whole try, connecting included. timeout: seconds that are left."""
    return min(timeout, LONGEST_TRY) + CONNECT_TIMEOUT


def within(seconds: float, ask: Callable[[], Passphrase], late: KeyFetchError) -> Passphrase:
    """Return what `ask` returns, or raise what it raises; raise `late` after a number of seconds.

    `ask` runs on a thread of its own, which is left behind then. A passphrase that it returns later is wiped.
    """
    lock = threading.Lock()
    over = threading.Event()
    given_up = False
    found: list[Passphrase] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            passphrase = ask()
        except BaseException as error:
            failed.append(error)
        else:
            with lock:
                found.append(passphrase)
                if given_up:
                    passphrase.wipe()
        over.set()

    # daemon: a thread that is left behind must not keep the process alive
    threading.Thread(target=work, name=THREAD, daemon=True).start()
    over.wait(min(seconds, threading.TIMEOUT_MAX))  # the wait for a user has no end, and Event.wait takes no infinity
    with lock:
        given_up = True
        if found:
            return found[0]
    raise failed[0] if failed else late

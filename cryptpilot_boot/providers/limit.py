"""A limit for the whole of a try: libraries have one for each wait, of which there may be any number."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from cryptpilot_boot.errors import KeyFetchError
    from cryptpilot_boot.passphrase import Passphrase

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection; inside a VPC an answer takes milliseconds."""
# One try may not eat the whole budget: a second one may reach a gateway that the first did not.
LONGEST_TRY = 15.0
"""Seconds that are left to one try for what it waits for."""
THREAD = "asks for a key"


def of_a_try(timeout: float) -> float:
    """Return the seconds that a whole try may take where so many are left: what it waits for, and connecting."""
    return min(timeout, LONGEST_TRY) + CONNECT_TIMEOUT


def within(seconds: float, ask: Callable[[], Passphrase], late: KeyFetchError) -> Passphrase:
    """Return what `ask` does, or raise what it raises; `late` when it has not done so after so many seconds.

    It is done on a thread of its own, which is left behind then; a passphrase that it gets after all is wiped.
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

    # daemon: what is left behind must not keep the process from ending
    threading.Thread(target=work, name=THREAD, daemon=True).start()
    over.wait(seconds)
    with lock:
        given_up = True
        if found:
            return found[0]
    raise failed[0] if failed else late

"""The signals by which a person or systemd ends this process."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignore() -> None:
    """Ignore them from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def without_exceptions(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` for a signal whose handler would raise an exception in the middle of what runs here.

    Handlers run on the main thread; on another this changes nothing.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    raising = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        raising = {}
    for number in raising:
        signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)

"""Doing something to several volumes side by side."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable, Union

from cryptpilot_boot import steps
from cryptpilot_boot.config import Volume
from cryptpilot_boot.errors import CryptpilotError, Interrupted, describe_bug

if TYPE_CHECKING:
    from collections.abc import Sequence

Result = Union[str, CryptpilotError]
"""What became of a volume: a sentence for the person, or what went wrong."""
Report = Callable[[Volume, Result], None]

_LOOK_AGAIN = 0.2  # seconds


def each(volumes: Sequence[Volume], work: Callable[[Volume], str], report: Report) -> bool:
    """Do `work` to every volume, each on a thread of its own; True when all went well.

    report: called on this thread with what became of each, as soon as it is known; it never fails. After a
    KeyboardInterrupt, and `system.run.interrupt` that goes with it, what has to be finished is waited for, so that
    nothing stays half open; then raises Interrupted.
    """
    results: dict[str, Result] = {}
    something = threading.Event()

    def tend(one: Volume) -> None:
        try:
            results[one.volume] = work(one)
        except CryptpilotError as error:
            results[one.volume] = error
        except Exception as bug:
            results[one.volume] = CryptpilotError(describe_bug(bug), "please report this, with the command you ran")
        something.set()

    threads: dict[str, threading.Thread] = {}

    def has_nothing_to_finish(one: Volume) -> bool:
        # a KeyboardInterrupt may come before a thread began
        began = threads[one.volume].is_alive() or one.volume in results
        return not began or _only_asks(one)

    unstarted = list(volumes)
    pending: list[Volume] = []
    interrupted = False
    while True:
        try:
            while unstarted and not interrupted:
                one = unstarted.pop(0)
                # daemon: one that waits for an answer must not keep an interrupted process from ending
                threads[one.volume] = threading.Thread(target=tend, args=[one], daemon=True)
                pending.append(one)
                threads[one.volume].start()
            if not pending or (interrupted and all(has_nothing_to_finish(one) for one in pending)):
                break
            something.wait(_LOOK_AGAIN)
            something.clear()
            for one in [one for one in pending if one.volume in results]:
                pending.remove(one)
                if isinstance(results[one.volume], Interrupted):
                    interrupted = True
                else:
                    report(one, results[one.volume])
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise Interrupted
    return not any(isinstance(result, CryptpilotError) for result in results.values())


def _only_asks(one: Volume) -> bool:
    """Tell whether a volume is asking for its key: nothing is open then, and nothing will be."""
    step = steps.current(one.volume)
    return step is not None and step.name == steps.FETCH_KEY

"""Doing something to several volumes side by side."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable, Union

from cryptpilot_boot.config import Volume
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.system.run import interrupt
from cryptpilot_boot.tasks import Crew, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

Result = Union[str, CryptpilotError]
"""The result of a volume: a sentence for the user, or what went wrong."""
Report = Callable[[Volume, Result], None]

_LOOK_AGAIN = 0.2  # seconds


def each(volumes: Sequence[Volume], work: Callable[[Volume], str], report: Report) -> bool:
    """Do `work` to every volume, each on a thread of its own; True when all went well.

    report: called on this thread with the result of each, as soon as it is known; it never fails. After a
    KeyboardInterrupt, and the `system.run.interrupt` that goes with it, waits for what has to be finished, so that
    nothing stays half open; then raises Interrupted. Ends all in the same way before it raises another exception, for
    instance when a thread cannot be started.
    """
    crew: Crew[str] = Crew("please report this, with the command you ran")
    unstarted = list(volumes)
    by_name = {one.volume: one for one in volumes}
    results: dict[str, Result] = {}
    interrupted = False
    bug: Exception | None = None
    while True:
        try:
            while unstarted and not interrupted:
                one = unstarted.pop(0)
                # without a prompt for a key it changes something from the beginning
                crew.start(one.volume, functools.partial(work, one), Phase.CHANGING)
            if interrupted:
                crew.end()
            with crew.changed:
                done = [task for task in crew.in_phase(Phase.DONE) if task.volume not in results]
                if not done:
                    if len(results) == len(crew.tasks) or (interrupted and not crew.has_to_finish):
                        break
                    crew.changed.wait(_LOOK_AGAIN)
            for task in done:
                results[task.volume] = task.result
                if isinstance(task.result, Interrupted):
                    interrupted = True
                else:
                    report(by_name[task.volume], task.result)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            interrupt()
            interrupted, bug = True, error
    if interrupted:
        raise bug or Interrupted
    return not any(isinstance(result, CryptpilotError) for result in results.values())

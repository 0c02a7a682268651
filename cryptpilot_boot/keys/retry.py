"""The one place that decides whether and when a key provider is asked again.

The SDK's own retries are off. An initrd may ask before DHCP is done: a missing network is no error until the
deadline, and a change of the network is a reason to ask at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.system.network import adopt_name_servers, has_route, limit_lookups
from cryptpilot_boot.system.wait import Deadline, network_changes, wait_for

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.provider import Ask
    from cryptpilot_boot.system.wait import Changes

_FIRST_PAUSE = 0.25  # seconds
_LONGEST_PAUSE = 8.0
_LONGEST_THROTTLED_PAUSE = 60.0


def pause(failures: int, left: float) -> float:
    """Return how long to rest before asking again, in seconds, by chance: a thousand machines must not ask in step.

    failures: how often it failed so far, from 1. left: seconds until the deadline.
    """
    longest = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
    return _by_chance(longest / 2, longest, left)


def throttled_pause(waited: float, left: float) -> float:
    """Return how long to rest before asking again, in seconds, when the gateway said that too many ask.

    waited: seconds since it said so first. How many ask is not known. But a gateway that still refuses after some
    seconds was busy for as long, so that the crowd needs at least as long once more: the rest grows with what was
    waited, and everyone is served within twice the time that the crowd needs at best. left: seconds until the deadline.
    `make bench BENCH=storm` shows what becomes of 500 to 50,000 machines that rest by this.
    """
    longest = min(2 + 1.25 * waited, _LONGEST_THROTTLED_PAUSE)
    return _by_chance(0.4 * longest, longest, left)


def _by_chance(shortest: float, longest: float, left: float) -> float:
    import random  # an answer at once needs none

    longest = min(longest, left)
    return random.uniform(min(shortest, longest), longest)  # noqa: S311 - no secret


def ask_until(ask: Ask, deadline: Deadline, volume: str) -> Passphrase:
    """Ask until there is an answer, a final error, or the deadline is over: that is all the retry budget there is.

    While there is no network hardly anything is asked: a try takes processor time, of which whoever brings the network
    up has the better use. Raises the last KeyFetchError, saying how often was asked and for how long; and that there is
    no route to any network, where that is why.
    """
    limit_lookups()
    with network_changes() as changes:
        failures = tries = 0  # failures: in a row, but for those that throttle
        throttled: Deadline | None = None  # since when, in a row
        while True:
            tries += 1
            adopt_name_servers()
            try:
                return ask(max(1.0, deadline.left()))
            except KeyFetchError as error:
                no_route = error.unreachable and not has_route()
                if not error.retryable or deadline.over:
                    raise _with_tries(_without_route(error) if no_route else error, tries, deadline) from None
                waiting_for = "the network: there is no route yet" if no_route else error.what
                log.emit(log.FETCH_KEY, "wait", volume=volume, facts={"waiting_for": waiting_for, "tries": tries})
                if no_route:
                    _await_network(changes, deadline)
                    failures = 0
                    continue
                if error.throttled:
                    throttled = throttled or Deadline(deadline.total)
                    rest = throttled_pause(throttled.passed(), deadline.left())
                else:
                    throttled = None
                    failures += 1
                    rest = pause(failures, deadline.left())
                if _rest(changes, Deadline(rest), wake=error.unreachable):
                    failures = 0


def _rest(changes: Changes, rest: Deadline, *, wake: bool) -> bool:
    """Rest before the next try; tell whether a change of the network ended that.

    Only who could not reach the network is woken by it: a gateway that said "later" is not asked sooner because
    an address was renewed.
    """
    while not rest.over:
        if changes.sleep(rest.left()) and wake:
            return True
    return False


def _await_network(changes: Changes, deadline: Deadline) -> None:
    """Rest until there is a network, at most 8 s, for not every endpoint needs one.

    A name server becomes known a moment after the route, if at all.
    """
    wait_for(lambda: has_route() or None, changes, Deadline(min(_LONGEST_PAUSE, deadline.left())))
    wait_for(lambda: adopt_name_servers() or None, changes, Deadline(min(_FIRST_PAUSE, deadline.left())))


def _without_route(error: KeyFetchError) -> KeyFetchError:
    """Put the first cause first: without a route no name server answers either, and no gateway."""
    return type(error)(
        f"there is no route to any network: {error.what}",
        "check what brings the network up: that DHCP answers, and that the network card has its driver",
    )


def _with_tries(error: KeyFetchError, tries: int, deadline: Deadline) -> KeyFetchError:
    if tries == 1:
        return error
    return type(error)(f"{error.what} ({tries} tries in {deadline.passed():.0f} s)", error.hint)

"""The one place that decides whether and when a key provider is asked again.

The SDK's own retries are off. An initrd may ask before DHCP is done: a missing network is no error until the
deadline, and a change of the network is a reason to ask at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system.network import adopt_name_servers, has_route, limit_lookups
from cryptpilot_boot.system.wait import Deadline, network_changes, wait_for

if TYPE_CHECKING:
    from cryptpilot_boot.system.wait import Changes

# Asks once for the passphrase, within so many seconds; a provider may take less time for a try than it is left.
# Raises KeyFetchError.
Ask = Callable[[float], Passphrase]

_FIRST_PAUSE = 0.25  # seconds
_LONGEST_PAUSE = 8.0
# What a throttled machine rests at most, after each time it was. A crowd is at the gateway, such as all machines of a
# region after an outage: at 1,000 requests a second (what KMS serves an account) ten thousand need 10 s. The first rest
# spreads them over a little more than that, and most need no other; those left are few, unless the crowd is larger.
_THROTTLED_PAUSES = (12.0, 4.0, 8.0, 16.0, 32.0)


def pause(failures: int, left: float, *, throttled: bool) -> float:
    """Return how long to rest before asking again, in seconds, by chance: a thousand machines must not ask in step.

    failures: how often it failed this way so far, from 1. left: seconds until the deadline. throttled: because too many
    asked. `make bench` shows what becomes of ten thousand machines that go by this.
    """
    if throttled:
        longest = _THROTTLED_PAUSES[min(failures, len(_THROTTLED_PAUSES)) - 1]
        shortest = longest / 8
    else:
        longest = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
        shortest = longest / 2
    longest = min(longest, left)
    import random  # an answer at once needs none

    return random.uniform(min(shortest, longest), longest)  # noqa: S311 - no secret


def ask_until(ask: Ask, deadline: Deadline, volume: str) -> Passphrase:
    """Ask until there is an answer, a final error, or the deadline is over: that is all the retry budget there is.

    While there is no network hardly anything is asked: a try takes processor time, of which whoever brings the network
    up has the better use. Raises the last KeyFetchError, saying how often was asked and for how long; and that there is
    no route to any network, where that is why.
    """
    limit_lookups()
    with network_changes() as changes:
        failures = {True: 0, False: 0}  # by whether throttled; in a row
        tries = 0
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
                    failures[False] = 0
                    continue
                failures[error.throttled] += 1
                rest = Deadline(pause(failures[error.throttled], deadline.left(), throttled=error.throttled))
                if _rest(changes, rest, wake=error.unreachable):
                    failures[False] = 0


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

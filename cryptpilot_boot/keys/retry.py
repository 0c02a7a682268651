"""The one place that decides whether and when a key provider is asked again.

Retries of the SDK are off. An initrd may ask before DHCP is done: a missing network is no error until the deadline, and
a change of the network causes a new try at once.
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
LONGEST_PAUSE = 8.0
_LONGEST_THROTTLED_PAUSE = 60.0


def pause(failures: int, left: float) -> float:
    """Return a random pause before the next try, in seconds: a thousand machines must not ask at the same moment.

    failures: how many tries have failed, from 1. left: seconds until the deadline.
    """
    longest = min(_FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
    return _by_chance(longest / 2, longest, left)


def throttled_pause(waited: float, left: float) -> float:
    """Return a random pause before the next try, in seconds, after the gateway said that there are too many requests.

    waited: seconds since it first said so. left: seconds until the deadline.

    The number of machines is not known. But a gateway that refuses for some seconds was busy that long, and the
    machines that wait need at least as long again. So the pause grows with the time waited, and all are served within
    twice the shortest possible time. `make bench BENCH=storm` shows it for 500 to 50,000 machines.
    """
    longest = min(2 + 1.25 * waited, _LONGEST_THROTTLED_PAUSE)
    return _by_chance(0.4 * longest, longest, left)


def _by_chance(shortest: float, longest: float, left: float) -> float:
    import random  # not needed for an answer to the first try

    longest = min(longest, left)
    return random.uniform(min(shortest, longest), longest)  # noqa: S311 - no secret


def ask_until(ask: Ask, deadline: Deadline, volume: str) -> Passphrase:
    """Ask until there is an answer, a final error, or the deadline expires. There is no other limit for retries.

    Without a network there are few tries: each takes processor time that bringing up the network needs. Raises the last
    KeyFetchError, with the number of tries and the time they took. It says that there is no route to any network if
    that is the cause.
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
    """Pause before the next try. Returns whether a change of the network ended the pause.

    wake: whether such a change ends it. A gateway that said "later" is not asked earlier because an address was
    renewed.
    """
    while not rest.over:
        if changes.sleep(rest.left()) and wake:
            return True
    return False


def _await_network(changes: Changes, deadline: Deadline) -> None:
    """Wait for a network, but at most 8 s, since some endpoints need none.

    If a name server becomes known, that is a moment after the route.
    """
    wait_for(lambda: has_route() or None, changes, Deadline(min(LONGEST_PAUSE, deadline.left())))
    wait_for(lambda: adopt_name_servers() or None, changes, Deadline(min(_FIRST_PAUSE, deadline.left())))


def _without_route(error: KeyFetchError) -> KeyFetchError:
    """Name the first cause: without a route, neither a name server nor a gateway answers."""
    return type(error)(
        f"there is no route to any network: {error.what}",
        "check what brings the network up: that DHCP answers, and that the network card has its driver",
    )


def _with_tries(error: KeyFetchError, tries: int, deadline: Deadline) -> KeyFetchError:
    if tries == 1:
        return error
    return type(error)(f"{error.what} ({tries} tries in {deadline.passed():.0f} s)", error.hint)

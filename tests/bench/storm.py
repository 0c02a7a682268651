"""All machines of a region come back at once, and the key service serves so many a second and throttles the rest.

Simulated, with the very functions that the agent rests by (in `keys.retry`) and its default deadline, for as many
machines as no laboratory has; and for real, with as many agents as this machine can hold.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.config import Boot
from cryptpilot_boot.keys import retry
from tests import machines
from tests.bench.table import columns, title
from tests.lab import net
from tests.lab.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.workshop import Workshop

RATE = 1000
"""Requests that are served in a second; what KMS grants an account at the shared gateway (docs/kms.md)."""
MACHINES = 10_000
BUDGET = float(Boot().timeout)
AIM = "aim: all within 2 times the ideal and 2 s more, at most 4 requests at the 99th percentile"
CROWDS = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
AGENTS = 200
AGENTS_RATE = 5
AGENTS_BUDGET = 600.0
_BAR = 60  # characters

# How long to rest, by the requests so far, the seconds since the first was refused, and those until the deadline.
Pause = Callable[[int, float, float], float]


@dataclass(frozen=True)
class Fare:
    """How a crowd fared. answers: seconds at which each was served; requests: how many each sent.

    served, throttled: requests by second.
    """

    crowd: int
    answers: Sequence[float]
    requests: Sequence[int]
    served: Counter[int]
    throttled: Counter[int]

    def line(self, name: str, rate: float) -> list[str]:
        """Return a row of the table."""
        ideal = self.crowd / rate
        last = max(self.answers)
        return [
            name,
            f"{ideal:g} s",
            f"{last:.1f} s",
            f"{last / ideal:.1f}",
            f"{statistics.median(self.answers):.1f} s",
            f"{_percentile(self.answers, 99):.1f} s",
            f"{statistics.mean(self.requests):.2f}",
            f"{_percentile(self.requests, 99):.0f}",
            f"{max(self.requests)}",
            f"{self.crowd - len(self.answers)}",
        ]


HEAD = ["", "ideal", "last", "ratio", "median", "99 %", "requests", "99 %", "most", "never"]


def throttled(_requests: int, waited: float, left: float) -> float:
    """Rest as the agent does that was throttled."""
    return retry.throttled_pause(waited, left)


def ordinary(requests: int, _waited: float, left: float) -> float:
    """Rest as the agent does after any other failure that may pass."""
    return retry.pause(requests, left)


def a_second(_requests: int, _waited: float, left: float) -> float:
    """Rest a second, as who gives the matter no thought."""
    return min(1.0, left)


def simulate(crowd: int, pause: Pause, *, window: float = 1.0, budget: float = BUDGET) -> Fare:
    """Have so many machines ask within a second. window: seconds over which the gateway counts requests."""
    random.seed(1)
    asking = [(random.random(), number) for number in range(crowd)]  # noqa: S311 - no secret
    heapq.heapify(asking)
    began = {number: when for when, number in asking}
    since: dict[int, float] = {}  # when each was refused first
    requests = [0] * crowd
    answers = []
    room: Counter[int] = Counter()
    served: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    while asking:
        when, number = heapq.heappop(asking)
        requests[number] += 1
        at = int(when / window)
        if room[at] < RATE * window:
            room[at] += 1
            served[int(when)] += 1
            answers.append(when)
            continue
        refused[int(when)] += 1
        left = began[number] + budget - when
        if left > 0:
            waited = when - since.setdefault(number, when)
            heapq.heappush(asking, (when + pause(requests[number], waited, left), number))
    return Fare(crowd, answers, requests, served, refused)


def measure(shop: Workshop) -> None:
    """Print what becomes of crowds, simulated and real."""
    title(f"A crowd within a second, {RATE} requests served a second (simulated); {AIM}")
    rows = [
        *(simulate(crowd, throttled).line(f"the agent, {crowd} machines", RATE) for crowd in CROWDS),
        *(
            simulate(MACHINES, throttled, window=window).line(f"  {MACHINES}, counted by {window} s", RATE)
            for window in (0.1, 0.02)
        ),
        simulate(MACHINES, ordinary).line(f"{MACHINES}, pauses from 0.25 s, doubled to 8 s", RATE),
        simulate(MACHINES, a_second).line(f"{MACHINES}, a pause of 1 s", RATE),
    ]
    columns(HEAD, rows)
    plot(simulate(MACHINES, throttled))
    title(f"{AGENTS} agents at once, {AGENTS_RATE} requests served a second (real, against the stand-in)")
    columns(HEAD, [real(shop).line("the agents", AGENTS_RATE)])


def plot(fare: Fare) -> None:
    """Draw the requests of each second: those served, those throttled."""
    most = max(fare.served[second] + fare.throttled[second] for second in fare.served)
    print(f"\nrequests by second: # served, - throttled; one character is {most / _BAR:.0f}")
    for second in range(int(max(fare.answers)) + 1):
        good, bad = (round(count[second] * _BAR / most) for count in (fare.served, fare.throttled))
        print(f"{second:>3} s {'#' * good}{'-' * bad} {fare.served[second]} + {fare.throttled[second]}")


def real(shop: Workshop) -> Fare:
    """Have agents wait for a network, give it to them, and see what the stand-in wrote down."""
    site = shop.site
    site.behave("crowd", rate=AGENTS_RATE)
    site.forget_requests()
    kms = machines.kms_command(site, str(site.directory), "")[:-2]  # without a file it prints that it is ready
    kms[kms.index("--listen") + 1] = f"{ADDRESS}:443"
    work = shop.directory("storm")
    (work / "volumes").mkdir()
    (work / "volumes/root.toml").write_text(machines.volume_file(site))
    with net.namespace({net.KMS_DOMAIN: ADDRESS}) as network:
        command = [sys.executable, "-m", "tests.bench.crowd", str(AGENTS), str(work), *kms]
        environment = {**os.environ, "PYTHONPATH": str(machines.CHECKOUT)}
        told = json.loads(run(network.command(command), env=environment, timeout=AGENTS_BUDGET))
    site.behave("ok")
    requests = site.requests()
    good = [one["outcome"] == "ok" for one in requests]
    seconds = [one["time"] - told["gate"] for one in requests]
    return Fare(
        AGENTS,
        [when for when, ok in zip(seconds, good) if ok],
        told["requests"],
        Counter(int(when) for when, ok in zip(seconds, good) if ok),
        Counter(int(when) for when, ok in zip(seconds, good) if not ok),
    )


ADDRESS = "192.0.2.1"


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

"""Timing programs inside a machine. It takes bash alone, and costs no more than the program itself."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass

TIMED = r"""
TIMEFORMAT='%R %U %S'

# processors: ticks since power-on of all processors together, busy and idle.
processors() {
    local user nice system idle wait irq softirq steal
    read -r _ user nice system idle wait irq softirq steal _ < /proc/stat
    busy_ticks=$((user + nice + system + irq + softirq + steal))
    idle_ticks=$((idle + wait))
}

# timed NAME PROGRAM [ARGUMENT...]: runs it, and says how long that took, what of it was processor time of the program
# and its children, and what all processors did meanwhile.
timed() {
    local name=$1 took
    shift
    processors
    local busy=$busy_ticks idle=$idle_ticks
    if ! { time "$@" > /dev/null 2> /run/timed-said; } 2> /run/timed; then
        echo "$*" | cat - /run/timed-said >&2
        return 1
    fi
    processors
    read -r took < /run/timed
    echo "timed $name $took $((busy_ticks - busy)) $((idle_ticks - idle))"
}
"""
"""Lines for the beginning of a machine's bash script."""


@dataclass(frozen=True)
class Timing:
    """What a program took, in seconds. processor: of its own and of its children's.

    busy: the share of all the machine's processors that was in use meanwhile, whoever used it.
    """

    seconds: float
    processor: float
    busy: float

    @property
    def share(self) -> float:
        """How much of the time one processor was at work for the program; above 1 there were several."""
        return self.processor / self.seconds


def medians(output: str) -> dict[str, Timing]:
    """Return the medians of what `timed` said, by name."""
    found: dict[str, list[Timing]] = defaultdict(list)
    for line in output.splitlines():
        if line.startswith("timed "):
            _, name, *numbers = line.split()
            seconds, user, system, busy, idle = map(float, numbers)
            found[name].append(Timing(seconds, user + system, busy / max(busy + idle, 1)))
    return {
        name: Timing(
            statistics.median(one.seconds for one in all_of_it),
            statistics.median(one.processor for one in all_of_it),
            statistics.median(one.busy for one in all_of_it),
        )
        for name, all_of_it in found.items()
    }

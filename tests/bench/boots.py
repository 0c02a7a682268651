"""What the agent costs a boot, and how long volumes take in an initrd, beside those who do the same."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Callable

from tests.bench import start
from tests.bench.bootlab import COUNTS, KEY, MOST, NETWORK, Initrd, Lab, only
from tests.bench.table import MIB, columns, row, title

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.workshop import Workshop

ROUNDS = 3
CLEVIS_ROUNDS = 1
"""It takes a minute, and is not near enough to any other for its spread to matter."""
AIM_MOST = 1.3
AIM_CLEVIS = 5
AIM_KEY_FILE = 0.2
"""Seconds of an ordinary machine."""
WAYS = {
    "own": "cryptpilot, KMS, each its own secret",
    "shared": "cryptpilot, KMS, one secret for all",
    "clevis": "clevis with tang",
    "key": "systemd-cryptsetup with a key file",
}


def measure(shop: Workshop) -> None:
    """Print what the agent adds to a boot, and the time from network-up to the last of several volumes."""
    lab = Lab(shop)
    found = _initrds(lab)
    host = statistics.median(fact["ready"]["cpu"] for fact in start.starts(shop))
    guest = statistics.median(one.event("ready")["facts"]["cpu"] for one in found["own", 1])
    _print_initrds(found, guest / host)
    _print_steps(found)
    _print_whole(lab)


def _initrds(lab: Lab) -> dict[tuple[str, int], list[Initrd]]:
    """Boot to the end of the initrd in every way, one way after the other in each round."""
    found: dict[tuple[str, int], list[Initrd]] = defaultdict(list)
    for number in range(ROUNDS):
        for count in COUNTS:
            floor = f"lab.floor={KEY}" if count == MOST and not number else ""
            ways: dict[str, Callable[[], Initrd]] = {
                "own": lambda count=count: lab.initrd(lab.own, count, f"{NETWORK} {only(count)}", kms=True),  # type: ignore[misc]
                "shared": lambda count=count: lab.initrd(lab.shared, count, f"{NETWORK} {only(count)}", kms=True),  # type: ignore[misc]
                "key": lambda count=count, floor=floor: lab.initrd(lab.key_file(count), count, floor),  # type: ignore[misc]
            }
            if number < CLEVIS_ROUNDS:
                ways["clevis"] = lambda count=count: lab.initrd(lab.clevis(count), count, NETWORK, tang=True)  # type: ignore[misc]
            for way, boot in ways.items():
                found[way, count].append(boot())
    return found


def _taken(way: str, one: Initrd) -> float:
    """Return the seconds from when the first volume could be opened, or its key asked for, to the last one open."""
    begun = one.begun if way == "key" else one.network
    assert begun is not None
    return one.opened - (max(begun, one.at("ready")) if one.events else begun)


def _print_initrds(found: dict[tuple[str, int], list[Initrd]], slower: float) -> None:
    taken = {key: statistics.median(_taken(key[0], one) for one in boots) for key, boots in found.items()}
    (floor,) = (one.floor for one in found["key", MOST] if one.floor)
    for count in COUNTS:
        taken["floor", count] = statistics.median(floor[count])
    title(f"Volumes opened in the initrd, in QEMU with two processors (median of {ROUNDS}, clevis {CLEVIS_ROUNDS})")
    lines = []
    for way, text in {**WAYS, "floor": "bare cryptsetup open, all at once (floor)"}.items():
        for count in COUNTS:
            this = taken[way, count]
            lines.append(
                [
                    f"{text}, {count}",
                    f"{this:.2f} s",
                    f"{this / taken[way, 1]:.2f}",
                    f"{taken['clevis', count] / this:.1f}",
                    f"{this / taken['key', count]:.2f}",
                    f"{this / taken['floor', count]:.2f}",
                    f"{(this - taken['key', count]) / slower:+.2f} s",
                ]
            )
    head = ["", "time", "to one", "faster than clevis", "to key file", "to floor", "to key file, in host terms"]
    columns(head, lines)
    print(
        "From network-up (or the agent's being ready, if later) to udev's being done with the last volume. The key\n"
        "file: from the start of the first systemd-cryptsetup. The root is an ordinary disk; clevis unlocks through\n"
        "crypttab and its own unit, as its dracut module has it."
    )
    row("aim", f"{MOST} volumes: at most {AIM_MOST} times one; {AIM_CLEVIS} times faster than clevis;")
    row("", f"within {AIM_KEY_FILE} s of the key file in host terms")
    row("slower than this machine, by the agent's start", f"{slower:.1f} times")
    row("floor: bare cryptsetup open, 8 at once to one", f"{taken['floor', MOST] / taken['floor', 1]:.2f}")


def _print_steps(found: dict[tuple[str, int], list[Initrd]]) -> None:
    """Print where the agent's own time goes, from its event log; of several volumes the last to end a step."""
    title("Of it, the agent's steps (event log, median)")
    parts: dict[str, Callable[[Initrd], float]] = {
        "ready at": lambda one: one.at("ready"),
        "network-up at": lambda one: one.at("network-up"),
        "to last key": lambda one: one.at("fetch-key") - max(one.at("network-up"), one.at("ready")),
        "to last open": lambda one: one.at("open") - one.at("fetch-key"),
        "processor time": lambda one: float(one.event("done")["facts"]["cpu"]),
    }
    lines = []
    for way in ("own", "shared"):
        for count in COUNTS:
            boots = found[way, count]
            medians = (statistics.median(map(part, boots)) for part in parts.values())
            peak = max(one.event("done")["facts"]["peak_memory"] for one in boots)
            lines.append([f"{WAYS[way]}, {count}", *(f"{value:.2f} s" for value in medians), f"{peak / MIB:.1f} MiB"])
    columns(["", *parts, "peak memory"], lines)


def _print_whole(lab: Lab) -> None:
    """Print what one volume in the initrd adds to the boot of a system whose root is an ordinary disk."""
    kinds: dict[str, tuple[str, Path, str]] = {
        "none": ("without cryptpilot", lab.none, ""),
        "network": ("without cryptpilot, network in the initrd", lab.none, NETWORK),
        "otp": ("one temporary volume", lab.otp, ""),
        "kms": ("one KMS volume", lab.own, f"{NETWORK} {only(1)}"),
    }
    pivots: dict[str, list[float]] = defaultdict(list)
    ups: dict[str, list[float]] = defaultdict(list)
    processor: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for kind, (_, image, arguments) in kinds.items():
            whole = lab.boot(image, arguments, network=bool(arguments))
            pivots[kind].append(whole.pivot)
            ups[kind].append(whole.up)
            if whole.processor is not None:
                processor[kind].append(whole.processor)
    title(f"What the agent adds to a boot whose root is an ordinary disk (median of {ROUNDS})")
    lines = []
    for kind, (text, _, _) in kinds.items():
        without = "network" if kind == "kms" else "none"
        pivot, up = statistics.median(pivots[kind]), statistics.median(ups[kind])
        lines.append(
            [
                text,
                f"{pivot:.2f} s",
                f"{up:.2f} s",
                f"{min(ups[kind]):.2f} to {max(ups[kind]):.2f} s",
                f"{pivot - statistics.median(pivots[without]):+.2f} s",
                f"{up - statistics.median(ups[without]):+.2f} s",
                f"{statistics.median(processor[kind]):.2f} s" if processor[kind] else "",
            ]
        )
    columns(["", "pivot", "all up", "spread", "added: pivot", "added: all up", "agent's processor time"], lines)
    print("Added by the KMS volume: to the boot with the network in the initrd, which it cannot do without.")

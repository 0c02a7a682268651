"""Asking again: while there is no network hardly at all, and at once when there is one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.keys import Passphrase, ask_until, retry
from cryptpilot_boot.system import network
from cryptpilot_boot.system.wait import Deadline
from tests.bench import storm

if TYPE_CHECKING:
    from pathlib import Path

ENOUGH = 1.5
"""Seconds in which somebody who asked again after 0.25 s, 0.5 s, 1 s would have asked four times or more."""
LONG = 60.0


class Gateway:
    """Can be reached when there is a route; counts how often it is asked."""

    def __init__(self, route_at_look: int) -> None:
        self.asked = 0
        self._looks_left = route_at_look

    def has_route(self) -> bool:
        self._looks_left -= 1
        return self._looks_left <= 0

    def ask(self, _: float) -> Passphrase:
        self.asked += 1
        if self._looks_left > 0:
            raise KeyFetchError("no network", retryable=True, unreachable=True)
        return Passphrase(b"x" * 32, strong=True)


def test_without_a_network_hardly_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(route_at_look=1 << 30)
    monkeypatch.setattr(retry, "has_route", gateway.has_route)
    with pytest.raises(KeyFetchError, match=r"^there is no route to any network: no network \(2 tries") as caught:
        ask_until(gateway.ask, Deadline(ENOUGH), "v")
    assert gateway.asked == 2
    assert "DHCP" in caught.value.hint


@pytest.mark.parametrize(
    ("route", "unreachable", "said"),
    [(True, True, "no name server answers"), (False, False, "no name server answers"), (False, True, "no route")],
)
def test_the_last_word_is_the_first_cause(
    monkeypatch: pytest.MonkeyPatch, route: bool, unreachable: bool, said: str
) -> None:
    monkeypatch.setattr(retry, "has_route", lambda: route)

    def ask(_: float) -> Passphrase:
        raise KeyFetchError("no name server answers", retryable=True, unreachable=unreachable)

    with pytest.raises(KeyFetchError, match=rf"^(there is )?{said}"):
        ask_until(ask, Deadline(0), "v")


def test_when_there_is_a_network_is_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(route_at_look=3)
    monkeypatch.setattr(retry, "has_route", gateway.has_route)
    with ask_until(gateway.ask, Deadline(LONG), "v"):
        assert gateway.asked == 2


@pytest.mark.parametrize(("failures", "between"), [(1, (0.125, 0.25)), (4, (1.0, 2.0)), (1000, (4.0, 8.0))])
def test_pauses_are_spread(failures: int, between: tuple[float, float]) -> None:
    require_spread([retry.pause(failures, LONG) for _ in range(2000)], between)


@pytest.mark.parametrize(("waited", "between"), [(0, (0.8, 2.0)), (8, (4.8, 12.0)), (1000, (24.0, 60.0))])
def test_whom_a_crowd_keeps_out_rests_longer_the_longer_it_has_waited(
    waited: float, between: tuple[float, float]
) -> None:
    require_spread([retry.throttled_pause(waited, LONG) for _ in range(2000)], between)


def require_spread(pauses: list[float], between: tuple[float, float]) -> None:
    """Fail unless pauses are between two, and come near to both."""
    shortest, longest = between
    assert shortest <= min(pauses) < shortest + 0.05 * longest
    assert 0.95 * longest < max(pauses) <= longest


def test_no_pause_is_longer_than_what_is_left() -> None:
    assert all(0 <= retry.throttled_pause(100, 0.5) <= 0.5 for _ in range(1000))
    assert all(0 <= retry.pause(9, 0.5) <= 0.5 for _ in range(1000))


@pytest.mark.parametrize("crowd", [500, 1_300, 3_000, 7_000, 16_000])
def test_a_crowd_of_any_size_is_served_within_twice_the_time_that_it_needs(crowd: int) -> None:
    """And 2 s more, for a machine cannot know how many others there are. `make bench BENCH=storm` has more sizes."""
    fare = storm.simulate(crowd, storm.throttled)
    assert len(fare.answers) == crowd
    assert max(fare.answers) <= 2 * crowd / storm.RATE + 2


def test_whom_a_crowd_keeps_out_asks_as_rarely_as_the_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    def policy(waited: float, _left: float) -> float:
        waits.append(waited)
        return 0.05

    monkeypatch.setattr(retry, "throttled_pause", policy)
    asked = []

    def ask(_: float) -> Passphrase:
        asked.append(time.monotonic())
        if len(asked) < 6:
            raise KeyFetchError("a crowd", retryable=True, throttled=len(asked) != 4)
        return Passphrase(b"x" * 32, strong=True)

    ask_until(ask, Deadline(LONG), "v").wipe()
    rests = [later - earlier for earlier, later in zip(asked, asked[1:])]
    assert min(rests) >= 0.05
    # counted from the first of those in a row: the fourth answer was another failure
    assert waits[3] < waits[1]
    assert waits[0] + 0.05 <= waits[1] <= waits[2] - 0.05


def test_a_final_error_does_not_burn_the_deadline() -> None:
    asked = []

    def ask(_: float) -> Passphrase:
        asked.append(1)
        raise KeyFetchError("no permission")

    deadline = Deadline(LONG)
    with pytest.raises(KeyFetchError, match=r"^no permission$"):
        ask_until(ask, deadline, "v")
    assert len(asked) == 1
    assert deadline.left() > LONG / 2


def test_an_endpoint_that_needs_no_network_is_asked_again_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "has_route", lambda: False)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.1)
    asked = 0

    def ask(_: float) -> Passphrase:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise KeyFetchError("not there yet", retryable=True, unreachable=True)
        return Passphrase(b"x" * 32, strong=True)

    with ask_until(ask, Deadline(LONG), "v"):
        assert asked == 3


@pytest.fixture
def initrd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An initrd's files: resolv.conf is a link to nowhere, networkd has said nothing yet."""
    (tmp_path / "resolv.conf").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(network, "in_initrd", lambda: True)
    monkeypatch.setattr(network, "RESOLV_CONF", tmp_path / "resolv.conf")
    monkeypatch.setattr(network, "NETWORKD_STATE", tmp_path / "state")
    return tmp_path


def test_name_servers_are_adopted_when_networkd_knows_them(initrd: Path) -> None:
    assert not network.adopt_name_servers()
    (initrd / "state").write_text("OPER_STATE=routable\nDNS=10.0.2.3 10.0.2.4\n")
    assert network.adopt_name_servers()
    assert (initrd / "resolv.conf").read_text() == "nameserver 10.0.2.3\nnameserver 10.0.2.4\n"
    assert sorted(path.name for path in initrd.iterdir()) == ["resolv.conf", "state"]


def test_name_servers_that_are_there_are_left_alone(initrd: Path) -> None:
    (initrd / "resolv.conf").unlink()
    (initrd / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    (initrd / "state").write_text("DNS=10.0.2.3\n")
    assert network.adopt_name_servers()
    assert (initrd / "resolv.conf").read_text() == "nameserver 192.0.2.1\n"


def test_the_time_that_was_asked_for_is_not_cut_at_the_deadline() -> None:
    """The last try may last longer than there is time."""

    def ask(_: float) -> Passphrase:
        time.sleep(1.7)
        raise KeyFetchError("no answer", retryable=True)

    with pytest.raises(KeyFetchError) as caught:
        ask_until(ask, Deadline(2), "v")
    assert caught.value.what == "no answer (2 tries in 4 s)"

"""Waiting: it ends the moment the thing arrives, and at the deadline when it does not."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.system.network import networkd_name_servers
from cryptpilot_boot.system.wait import Changes, Deadline, wait_for

if TYPE_CHECKING:
    from pathlib import Path

LONG = 60.0
"""Seconds no test is allowed to take: an end of a wait within it was no accident."""


def no_wait(_: float) -> None:
    pytest.fail("there was nothing to wait for")


def test_a_look_that_finds_something_needs_no_wait() -> None:
    with Changes() as changes:
        assert wait_for(lambda: "it", changes, Deadline(0), on_wait=no_wait) == "it"


def test_at_the_deadline_there_is_nothing() -> None:
    told: list[float] = []
    with Changes() as changes:
        assert wait_for(lambda: None, changes, Deadline(0.1), on_wait=told.append) is None
    assert len(told) == 1


def test_a_file_that_appears_in_a_watched_directory_ends_the_sleep(tmp_path: Path) -> None:
    with Changes(directory=tmp_path) as changes:
        assert not changes.sleep(0.01)
        threading.Timer(0.1, (tmp_path / "state").write_text, ["x"]).start()
        assert changes.sleep(LONG)


def test_a_directory_that_is_not_there_yet_is_watched_for(tmp_path: Path) -> None:
    directory = tmp_path / "netif"
    with Changes(directory=directory) as changes:
        threading.Timer(0.1, directory.mkdir).start()
        assert changes.sleep(LONG)
        changes.sleep(0)  # looks for the directory; until then wait_for's look once a second has to do
        threading.Timer(0.1, (directory / "state").write_text, ["x"]).start()
        assert changes.sleep(LONG)


WAKE = """
import subprocess
from cryptpilot_boot.system.wait import network_changes
with network_changes() as changes:
    print(changes.sleep(0.01))
    subprocess.Popen(["ip", "link", "set", "lo", "up"])
    print(changes.sleep(60))
"""


@pytest.mark.root
def test_a_link_that_comes_up_ends_the_sleep() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", WAKE], capture_output=True, text=True, check=True, timeout=LONG / 2
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("state", "servers"),
    [
        ("", []),
        ("OPER_STATE=routable\nDNS=10.0.2.3\nNTP=10.0.2.4\n", ["10.0.2.3"]),
        ("DNS=10.0.2.3#dns.example fd00::3 10.0.0.1:5353\n", ["10.0.2.3", "fd00::3"]),
        ("DNS=1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4\n", ["1.1.1.1", "1.1.1.2", "1.1.1.3"]),
        ("DNS=\n", []),
    ],
)
def test_name_servers_are_read_from_networkds_state(state: str, servers: list[str]) -> None:
    assert networkd_name_servers(state) == servers

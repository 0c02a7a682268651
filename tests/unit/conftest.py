"""What all unit tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.system import run

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING = frozenset({"test_stage.py", "test_prompt.py", "test_progress.py"})
"""Files whose tests wait for longest, and share nothing that is slow to make."""


@pytest.hookimpl(trylast=True)  # after what is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `make unit`, have half of the processes begin with the tests that wait, while the others compute.

    pytest-xdist gives each process one piece of the list, and later what others have not begun.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not config.getoption("deal_waits"):
        return
    waiting = [item for item in items if item.path.name in WAITING]
    others = [item for item in items if item.path.name not in WAITING]
    half = max(1, processes // 2)
    items.clear()
    for number in range(processes):
        if number < half:
            items += waiting[number::half]
        items += others[len(others) * number // processes : len(others) * (number + 1) // processes]


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Give each test the usual umask, and no interruption: commands change both, for the whole process."""
    before = os.umask(0o022)
    run.clear_interruption()
    yield
    run.clear_interruption()
    os.umask(before)

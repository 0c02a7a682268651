"""What all unit tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.system import run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Give each test the usual umask, and no interruption: commands change both, for the whole process."""
    before = os.umask(0o022)
    run.clear_interruption()
    yield
    run.clear_interruption()
    os.umask(before)

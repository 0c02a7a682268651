"""What all unit tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Give each test the usual umask: the command line sets its own, for the whole process."""
    before = os.umask(0o022)
    yield
    os.umask(before)

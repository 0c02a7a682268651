"""Trees of other releases than Debian 12."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import machines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def bullseye_tree(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A Debian 11 tree with the product installed: cryptsetup 2.3."""
    return machines.installed_tree(tmp_path_factory.mktemp("bullseye") / "root", release="bullseye")

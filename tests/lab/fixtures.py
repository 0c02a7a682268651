"""Fixtures of the lab, for all tests: pyproject.toml registers them as a plugin.

What takes long is made once and cached outside the repository, so the first run is slow and the next is not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.cache import cached
from tests.lab.net import namespace
from tests.lab.run import missing_programs
from tests.lab.tree import make_initrd, root_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.net import Namespace


@pytest.fixture(scope="session")
def lab() -> None:
    """Fail on a machine that cannot hold the lab: what is passed over there would look as if it had passed."""
    if os.geteuid() != 0:
        pytest.fail("the lab needs root: it makes namespaces and trees of root's files")
    if packages := missing_programs():
        pytest.fail(f"the lab needs packages: apt-get install {' '.join(packages)}")


@pytest.fixture(scope="session")
def bookworm_tree(lab: None) -> Path:  # noqa: ARG001
    """Return a Debian 12 root tree with dracut 059 and systemd 252; clone it to change it."""
    return root_tree("bookworm")


@pytest.fixture(scope="session")
def bookworm_initrd(lab: None) -> Path:  # noqa: ARG001
    """Return the initrd that dracut makes in that tree when nothing is asked of it."""
    return plain_initrd("bookworm")


def plain_initrd(suite: str) -> Path:
    """Return the initrd that dracut makes in a release's tree when nothing is asked of it, cached."""
    return initrd_of(root_tree(suite), f"initrd-plain-{suite}")


def initrd_of(tree: Path, name: str) -> Path:
    """Return the initrd that dracut makes in a cached tree when nothing is asked of it, cached by that name."""

    def make(path: Path) -> None:
        make_initrd(tree, path)

    return cached(name, [tree.name], make)


@pytest.fixture
def network(lab: None) -> Iterator[Namespace]:  # noqa: ARG001
    """Give a network with nothing on it but DNS, which says that the KMS is at 10.0.2.2."""
    with namespace() as made:
        yield made

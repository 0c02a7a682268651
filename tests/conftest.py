"""What all tests share: one installed tree and one KMS instance, made once a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import machines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> machines.Site:
    """A KMS instance with a secret in it."""
    return machines.make_site(tmp_path_factory.mktemp("site") / "kms")


@pytest.fixture(scope="session")
def tree(lab: None, tmp_path_factory: pytest.TempPathFactory, site: machines.Site) -> Path:  # noqa: ARG001
    """A Debian 12 tree with the product installed and a root volume configured."""
    tree = machines.installed_tree(tmp_path_factory.mktemp("tree") / "root")
    machines.configure(tree, {machines.ROOT: machines.volume_file(site)}, machines.settings())
    return tree

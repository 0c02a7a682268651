"""What several questions need: a KMS instance, a tree with the product, images; each made when first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tests import machines

if TYPE_CHECKING:
    from pathlib import Path


class Workshop:
    """A directory for one run of the bench, and what is shared in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def directory(self, name: str) -> Path:
        """Make a directory for one question."""
        path = self._directory / name
        path.mkdir()
        return path

    @cached_property
    def site(self) -> machines.Site:
        """A KMS instance with a secret in it."""
        return machines.make_site(self._directory / "kms")

    @cached_property
    def tree(self) -> Path:
        """A Debian 12 tree with the product installed and a root volume configured; not to be changed."""
        tree = machines.installed_tree(self._directory / "tree", quick=False)
        machines.configure(tree, {machines.ROOT: machines.volume_file(self.site)}, machines.settings())
        return tree

    @cached_property
    def image(self) -> machines.Image:
        """The tree's initrd."""
        return machines.make_image(self.tree, self._directory / "with.img")

    @cached_property
    def bare_image(self) -> machines.Image:
        """The initrd of the same tree without the product."""
        return machines.make_image(self.tree, self._directory / "without.img", "--omit", "cryptpilot")

"""Trees with the product installed, and the images that their dracut makes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.run import run
from tests.lab.tree import clone, make_initrd, root_tree
from tests.machines.site import CHECKOUT

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence


def install(tree: Path) -> Path:
    """Install the product into a tree with `build.py install`, and what the lab has on its machines."""
    python = os.environ.get("PYTHON", "/usr/bin/python3")
    run([python, CHECKOUT / "build.py", "install", "--destdir", tree])
    return equip(tree)


def equip(tree: Path) -> Path:
    """Put into a tree what types the steps of a test in the booted system, and what reports of it."""
    guest = Path(__file__).with_name("guest")
    run(["cp", "-r", f"{guest}/.", tree])
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in ("lab-steps.service", "lab-report.service"):
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")
    return tree


def installed_tree(destination: Path, extra: Sequence[str] = (), release: str = "", *, quick: bool = True) -> Path:
    """Make a tree with the product installed; `extra` are more packages in it.

    release: the Debian release; without it Debian 12. quick: have its dracut compress little; as well as can be, which
    is the default, takes half a minute of processor time an image.
    """
    tree = install(clone(root_tree(release or "bookworm", extra), destination))
    return compress_little(tree) if quick else tree


def compress_little(tree: Path) -> Path:
    """Have a tree's dracut compress images little."""
    (tree / "etc/dracut.conf.d/90-lab.conf").write_text('compress="gzip -n -1"\n')
    return tree


@dataclass(frozen=True)
class Image:
    """An initrd as dracut made it. output: what dracut said."""

    path: Path
    output: str


def make_image(tree: Path, path: Path, *options: str, made: datetime.datetime | None = None) -> Image:
    """Make the initrd of a configured tree. made: when it says that it was made, None for now."""
    env = {"SOURCE_DATE_EPOCH": str(int(made.timestamp()))} if made else None
    return Image(path, make_initrd(tree, path, *options, env=env))

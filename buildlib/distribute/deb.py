"""The DEB. Uses: dpkg-deb."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib.base import ROOT, BuildError, run
from buildlib.distribute.stage import LICENSES

if TYPE_CHECKING:
    from buildlib.distribute.stage import Facts

SOURCE = "packaging/debian"
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
_COPIED = ("conffiles", "triggers")
_COPYRIGHT = """\
cryptpilot is under the Apache License 2.0, see /usr/share/common-licenses/Apache-2.0.

It carries works of others, each under its own license. /usr/{licenses}/INDEX names all of them, and
the texts are beside it.
"""


def file_name(about: Facts) -> str:
    """Return the name of the package's file."""
    return f"cryptpilot_{about.version}-{about.release}_{about.deb_machine}.deb"


def build(stage: Path, about: Facts, output: Path, checkout: Path = ROOT) -> Path:
    """Make the package of a staged tree below `output`. Raises BuildError."""
    if not shutil.which("dpkg-deb"):
        raise BuildError("dpkg-deb is missing, which makes the DEB", "install it: apt-get install dpkg")
    with tempfile.TemporaryDirectory(prefix="cryptpilot-deb-") as name:
        root = Path(name, "root")
        shutil.copytree(stage, root, symlinks=True)
        _fit(root)
        _control(root, about, checkout / SOURCE)
        for path in [root, *root.rglob("*")]:
            os.utime(path, (about.epoch, about.epoch), follow_symlinks=False)
        output.mkdir(parents=True, exist_ok=True)
        place = output / file_name(about)
        # of one thread, since what several write depends on how many there are; Debian 11 knows no zstd
        options = ["--root-owner-group", "-Zxz", "-z6", "--threads-max=1"]
        run(["dpkg-deb", *options, "--build", root, place], env=about.environment)
        return place


def _fit(root: Path) -> None:
    """Put what Debian wants elsewhere, or otherwise, than the layout has it."""
    for page in (root / "usr/share/man").rglob("*.[578]"):
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.with_name(f"{page.name}.gz").chmod(0o644)
        page.unlink()
    # Debian's zsh looks for functions of packages there, and in no site-functions but that of /usr/local
    (root / "usr/share/zsh/site-functions").rename(root / "usr/share/zsh/vendor-completions")
    copyright = root / "usr/share/doc/cryptpilot/copyright"
    copyright.write_text(_COPYRIGHT.format(licenses=LICENSES.partition("/")[2]))
    copyright.chmod(0o644)


def _control(root: Path, about: Facts, source: Path) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = "".join(f"{_md5(path)}  {path.relative_to(root)}\n" for path in files if root / "etc" not in path.parents)
    kib = sum(-(-path.stat().st_size // 1024) for path in files)
    values = {
        "VERSION": f"{about.version}-{about.release}",
        "ARCHITECTURE": about.deb_machine,
        "SIZE": str(kib),
        "GLIBC": about.least["GLIBC"],
    }
    control = re.sub(r"@(\w+)@", lambda found: values[found[1]], (source / "control").read_text())
    place = root / "DEBIAN"
    place.mkdir()
    place.chmod(0o755)
    texts = {
        "control": control,
        "md5sums": sums,
        **{name: (source / name).read_text() for name in (*_SCRIPTS, *_COPIED)},
    }
    for name, text in texts.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755 if name in _SCRIPTS else 0o644)


def _md5(path: Path) -> str:
    # what dpkg --verify knows of; it is no protection
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

"""The agent as a Debian release would build it: frozen with the release's own Python, on its own glibc.

It is made in a tree of the release, with this machine's network: the packages of the lock files come from wherever
this machine's pip would take them.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from buildlib.base import ROOT, lay_out
from buildlib.freeze import NAME, sources
from tests.lab.cache import cache_directory, cached
from tests.lab.run import run
from tests.lab.tree import SHARE, build_tree, clone, in_chroot

# What a program that fetches goes by: who answers to which name, whom to trust, and pip's own files.
_CONFIGURATION = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
_OF_THE_USER = (".config/pip", ".pip", ".netrc")
_VARIABLE = re.compile(r"PIP_\w+|(https?|no|all)_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE", re.IGNORECASE)
# A path in what `pip config list` prints, alone or in a list: an index, packages or a certificate may be there.
_PATH = re.compile(r"""(?:(?<=[\s'"])|(?<=\\n)|(?<=file://))/[\w./+@-]+""")


def frozen(suite: str) -> Path:
    """Return the bundle that `build.py freeze` makes in a Debian release, cached: not to be changed.

    The first one of a release takes a minute or two; one after a change of the sources half a minute.
    """
    tree = build_tree(suite)
    parts = [part for path in sources() for part in (str(path.relative_to(ROOT)), path.read_text())]

    def make(path: Path) -> None:
        # What build.py keeps for the next time: it knows itself what of that is still good.
        kept = cache_directory() / f"build-{suite}"
        kept.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cryptpilot-build-") as name:
            in_chroot(
                clone(tree, Path(name, "tree")),
                ["/usr/bin/python3", ROOT / "build.py", "freeze", "--output", f"{SHARE}/dist"],
                share=kept,
                mounts=[ROOT, *packages()],
                network=True,
                env={
                    **{key: value for key, value in os.environ.items() if _VARIABLE.fullmatch(key)},
                    "HOME": str(Path.home()),
                    "CRYPTPILOT_CACHE": SHARE,
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                timeout=900,
            )
        lay_out(kept / "dist" / NAME, path)

    return cached(f"bundle-{suite}", [tree.name, *parts], make)


def packages() -> list[Path]:
    """Return what this machine's pip goes by, and where it finds packages on this machine."""
    configuration = run([sys.executable, "-m", "pip", "config", "list"])
    paths = [
        *map(Path, _CONFIGURATION),
        *(Path.home() / name for name in _OF_THE_USER),
        # an index called "simple" may lead to files beside it
        *(Path(found.removesuffix("/").removesuffix("/simple")) for found in _PATH.findall(configuration)),
    ]
    found = sorted({path for path in paths if path.exists()})
    return [path for path in found if not any(other in path.parents for other in found)]

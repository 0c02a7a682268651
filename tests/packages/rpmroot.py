"""A machine whose packages are RPMs, made of a Debian tree: none of the Enterprise Linux family can be had here.

In its RPM database stand-ins provide the names of what Debian's packages have put there: `standins.spec`. dnf, rpm and
createrepo_c are Debian's. It is Debian 11, which is nearest to that family: rpm 4.16 as in EL 9, dracut 051 and
cryptsetup 2.3 as in EL 8.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.cache import cached
from tests.lab.run import run
from tests.lab.tree import SHARE, clone, in_chroot, root_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEC = Path(__file__).with_name("standins.spec")
REPOSITORY = "/opt/repository"
"""Where the machine finds the repository that it installs from."""
SUITE = "bullseye"
_PACKAGES = ("dnf", "rpm")
_NAMES = (
    "cryptsetup",
    "dracut",
    "dracut-network",
    "e2fsprogs",
    "util-linux",
    "systemd",
    "cpio",
    "xfsprogs",
    "dosfstools",
    "findutils",
)
"""What the RPM depends on, as Enterprise Linux calls it."""
_IN_DEBIAN = {"cryptsetup": "cryptsetup-bin"}
_GLIBC_MINORS = range(2, 100)


def rpm_root(extra: Sequence[str] = ()) -> Path:
    """Return the tree, shared and cached: not to be changed. extra: more of Debian's packages in it."""
    tree = root_tree(SUITE, (*_PACKAGES, *extra))

    def make(path: Path) -> None:
        clone(tree, path)
        # Debian's rpm keeps root's database in root's home
        (path / "etc/rpm").mkdir(parents=True, exist_ok=True)
        (path / "etc/rpm/macros").write_text("%_dbpath /var/lib/rpm\n")
        with tempfile.TemporaryDirectory(prefix="cryptpilot-standins-") as name:
            [package] = built(SPEC, Path(name), standins=", ".join(provides(tree)))
            in_chroot(path, ["rpm", "--install", f"{SHARE}/{package.name}"], share=package.parent)
        # as in Enterprise Linux
        (path / "usr/local/bin/yum").symlink_to("/usr/bin/dnf")
        (path / "etc/dnf/dnf.conf").write_text("[main]\ngpgcheck=1\ninstallonly_limit=3\nbest=True\n")
        (path / "etc/yum.repos.d").mkdir(parents=True, exist_ok=True)
        (path / "etc/yum.repos.d/local.repo").write_text(
            f"[local]\nname=local\nbaseurl=file://{REPOSITORY}\ngpgcheck=0\n"
        )

    return cached(
        f"rpm-root{'-extra' if extra else ''}", [tree.name, SPEC.read_text(), Path(__file__).read_text()], make
    )


def built(spec: Path, place: Path, **macros: str) -> list[Path]:
    """Make the packages of a small spec below a directory."""
    defined = {"_topdir": place, "_rpmdir": place, "_rpmfilename": "%%{NAME}-%%{VERSION}.rpm", **macros}
    run(["rpmbuild", "-bb", "--quiet", *(f"--define={name} {value}" for name, value in defined.items()), spec])
    return sorted(place.glob("*.rpm"))


def provides(tree: Path) -> list[str]:
    """Return what the stand-ins provide, in the versions that Debian's packages have."""
    versions = _versions(tree)
    named = [f"{name} = {versions[_IN_DEBIAN.get(name, name)]}" for name in _NAMES]
    least = int(re.sub(r"^2\.(\d+).*", r"\1", versions["libc6"]))
    libraries = (
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "librt.so.1",
        "libutil.so.1",
    )
    symbols = [f"libc.so.6(GLIBC_2.{minor})(64bit)" for minor in _GLIBC_MINORS if minor <= least]
    return [
        *named,
        "/bin/sh",
        *(f"{library}()(64bit)" for library in (*libraries, "libz.so.1")),
        *symbols,
        "libz.so.1(ZLIB_1.2.0)(64bit)",
    ]


def _versions(tree: Path) -> dict[str, str]:
    """Return upstream's versions of Debian's packages, by name."""
    shown = run(["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "--show", "--showformat=${Package} ${Version}\\n"])
    return {name: re.sub(r"^\d+:|-[^-]*$", "", version) for name, version in map(str.split, shown.splitlines())}


def publish(packages: Sequence[Path], tree: Path) -> None:
    """Put packages into the repository of a machine, in place of those that are there."""
    place = tree / REPOSITORY.lstrip("/")
    # dnf counts the age of its copy in whole seconds: with metadata_expire=0 it takes one made in this second
    run(["rm", "--recursive", "--force", place, tree / "var/cache/dnf"])
    place.mkdir(parents=True)
    run(["cp", "--reflink=auto", *packages, place])
    run(["createrepo_c", "--quiet", place])

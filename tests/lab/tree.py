"""Debian root trees: what the machines of the lab boot from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.cache import cached
from tests.lab.run import LabError, contained, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lab.run import Argument

PACKAGES = (
    # a system that boots
    "systemd",
    "systemd-sysv",
    "udev",
    "kmod",
    "dbus",
    "linux-image-cloud-amd64",
    # what makes its initrd
    "dracut",
    "dracut-network",
    "zstd",
    "cpio",
    # what the product runs
    "cryptsetup-bin",
    "e2fsprogs",
    "xfsprogs",
    "dosfstools",
    "iproute2",
    "util-linux",
    # what a person at work on it types
    "sudo",
    "file",
    # what a person looking into a failed boot wants
    "login",
    "passwd",
    "procps",
    "strace",
)

RELEASES = ("bullseye", "bookworm", "trixie")
"""The stable releases that there are trees of."""

TESTING = "forky"
"""What Debian testing is called: the newest of all that the product meets."""

SUITE_OPTIONS = {
    "bullseye": (
        # Its security archive names packages that it no longer holds.
        """--setup-hook=sed -i '/^deb .* bullseye /!d' "$1/etc/apt/sources.list\"""",
        # Later releases see to it themselves that /lib is /usr/lib; for this one its installer did.
        '--setup-hook=for name in bin sbin lib lib64; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1"; done',
    ),
    # Where a mirror does not follow it, the file that says what is in it has expired.
    TESTING: ("""--aptopt=Acquire::Check-Valid-Until "false\"""",),
}
"""What mmdebstrap needs to be told for one release only."""

SHARE = "/srv"
"""Where a directory shared with the host appears, in a chroot and in a user-mode machine: Debian leaves it empty."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def root_tree(
    suite: str = "bookworm", extra: Sequence[str] = (), options: Sequence[str] = (), *, without: Sequence[str] = ()
) -> Path:
    """Return the root tree of a Debian release, shared and cached: not to be changed, see `clone`.

    `suite` is bullseye, bookworm, trixie or forky: dracut 051, 059, 106, or 112 and newer. That last one is as it was
    on the day it was made: delete it from the cache to have it as it is today. A tree has a kernel and dracut but no
    initrd, no DNS server and no password for root. `extra` are packages beside `PACKAGES`, `without` those of them that
    are left out, `options` more of mmdebstrap's. Making it takes half a minute. Host program: ``mmdebstrap``.
    """
    command = _mmdebstrap(suite, [*(one for one in PACKAGES if one not in without), *extra], options)
    # the cache keeps a few of each name: a run that needs several sets of packages must not make one push out another
    name = "-".join(["tree", suite, *extra, *(f"no-{one}" for one in without)])[:100]

    def make(path: Path) -> None:
        # Or else the kernel's post-installation script would have dracut make an initrd.
        run([*command, path], env={**os.environ, "INITRD": "No"}, timeout=600)

    return cached(name, command, make)


def clone(tree: Path, destination: Path) -> Path:
    """Copy a tree, to change the copy."""
    run(["cp", "--archive", "--reflink=auto", tree, destination])
    return destination


def in_chroot(
    tree: Path,
    argv: Sequence[Argument],
    *,
    share: Path | None = None,
    mounts: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> str:
    """Run a program in a tree and return its output; `share` is seen there at `SHARE`.

    Mounts and processes are the program's own and vanish with it, whatever happens; so is its network, which reaches
    nothing. `mounts` are files and directories of this machine that are seen at
    the same place there, not to be written to.
    """
    return run(
        contained(
            ["sh", Path(__file__).with_name("chroot.sh"), tree, SHARE, share or "", " ".join(map(str, mounts)), *argv],
            "--mount",
            "--net",
        ),
        env={"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})},
        timeout=timeout,
    )


def kernel_release(tree: Path) -> str:
    """Return the release of the one kernel a tree has."""
    releases = [path.name for path in (tree / "usr/lib/modules").iterdir()]
    if len(releases) != 1:
        raise LabError(f"{tree} has modules for {len(releases)} kernels, not for one: {releases}")
    return releases[0]


def kernel(tree: Path) -> Path:
    """Return the path of a tree's kernel."""
    return tree / "boot" / f"vmlinuz-{kernel_release(tree)}"


def make_initrd(tree: Path, destination: Path, *options: str, env: Mapping[str, str] | None = None) -> str:
    """Make an initrd for a tree's kernel with the tree's own dracut, and return what dracut said.

    The image fits any machine unless `options` say otherwise: the host is not the machine it is for. env: what dracut
    finds in its environment.
    """
    output = in_chroot(
        tree,
        ["dracut", "--no-hostonly", "--force", *options, f"{SHARE}/{destination.name}", kernel_release(tree)],
        share=destination.parent,
        env=env,
    )
    if not destination.exists():
        raise LabError(f"dracut ended well but made no image.\n{output}")
    return output


def _mmdebstrap(suite: str, packages: Sequence[str], options: Sequence[str]) -> list[str]:
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--components=main",
        "--format=directory",
        "--include=" + ",".join(packages),
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        # Both are this machine's, and mmdebstrap copies them.
        '--customize-hook=rm "$1/etc/resolv.conf"',
        '--customize-hook=echo lab > "$1/etc/hostname"',
        *SUITE_OPTIONS.get(suite, ()),
        *options,
        suite,
    ]

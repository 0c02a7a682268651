"""What a person types to install, upgrade and remove the package, by dnf and by apt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.run import run
from tests.lab.tree import SHARE, clone, in_chroot, root_tree
from tests.packages import made, rpmroot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GUIDE = "sudo yum install -y cryptpilot"
"""How the guide has it installed."""


@dataclass(frozen=True)
class Dnf:
    """A machine of RPMs, with a repository."""

    tree: Path
    again = "dnf reinstall --assumeyes cryptpilot"
    remove = "dnf remove --assumeyes cryptpilot"
    version = "rpm --query --queryformat '%{VERSION}-%{RELEASE}' cryptpilot"
    verify = "rpm --verify cryptpilot"
    unpacking = "/usr/libexec/cryptpilot/*;*"

    @classmethod
    def machine(cls, destination: Path, extra: Sequence[str] = ()) -> Dnf:
        """Make one. extra: more of Debian's packages on it."""
        return cls(clone(rpmroot.rpm_root(extra), destination))

    def install(self, release: str) -> str:
        """Put a release into the repository; return the command line that installs it, or upgrades to it."""
        rpmroot.publish([made.rpm_of(release)], self.tree)
        return "dnf install --assumeyes cryptpilot" if release == "1" else "dnf upgrade --assumeyes"


@dataclass(frozen=True)
class Apt:
    """A Debian, which is given the file."""

    tree: Path
    suite: str = "bookworm"
    again = "apt-get install --yes --reinstall /opt/cryptpilot.deb"
    remove = "apt-get remove --yes cryptpilot"
    version = "dpkg-query --show --showformat='${Version}' cryptpilot"
    verify = "dpkg --verify cryptpilot"
    unpacking = "/usr/libexec/cryptpilot/*.dpkg-new"

    @classmethod
    def machine(cls, destination: Path, suite: str = "bookworm") -> Apt:
        """Make one."""
        tree = clone(root_tree(suite), destination)
        for path in (tree / "etc/dpkg/dpkg.cfg.d").glob("*mmdebstrap"):  # it leaves out documentation
            path.unlink()
        return cls(tree, suite)

    def install(self, release: str) -> str:
        """Put a release's file there; return the command line that installs it, or upgrades to it."""
        run(["cp", made.deb_of(release), self.tree / "opt/cryptpilot.deb"])
        return "apt-get install --yes /opt/cryptpilot.deb"


def rpm_tree(destination: Path, extra: Sequence[str] = ()) -> Path:
    """Make a tree on which dnf has installed the package, as a person types it. extra: more of Debian's packages."""
    manager = Dnf.machine(destination, extra)
    rpmroot.publish([made.rpm_of("1")], manager.tree)
    typed(manager, GUIDE)
    return manager.tree


def typed(manager: Dnf | Apt, command: str, *, share: Path | None = None, timeout: float = 300) -> str:
    """Run a command line on the machine and return what it said, on both its outputs. Fails when it does."""
    script = f"exec 2>&1\nexport DEBIAN_FRONTEND=noninteractive\n{command}"
    return in_chroot(manager.tree, ["bash", "-ec", script], share=share, timeout=timeout)


__all__ = ["SHARE", "Apt", "Dnf", "rpm_tree", "typed"]

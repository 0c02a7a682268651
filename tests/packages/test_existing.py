"""The existing tool's package has the name of this one, and higher versions: what dnf and apt make of the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.run import LabError, run
from tests.packages import made, rpmroot
from tests.packages.managers import GUIDE, Apt, Dnf, typed
from tests.packages.test_packages import SETTINGS, VOLUME

if TYPE_CHECKING:
    from pathlib import Path


EXISTING = rpmroot.SPEC.with_name("existing.spec")
OURS = "1:0.1.0-1"
THEIRS = "(none):0.6.0-1"
MODULE = "usr/lib/dracut/modules.d/91cryptpilot/module-setup.sh"
REFUSED = "cryptpilot: error: the installed cryptpilot opens the root file system (/etc/cryptpilot/fde.toml)"
VERSION = "rpm --query --queryformat '%{EPOCH}:%{VERSION}-%{RELEASE}' cryptpilot"
IS_ENABLED = "systemctl is-enabled cryptpilot.service || :"


def with_existing(work: Path, *, parts: bool) -> Dnf:
    """Make a machine with the existing tool at work, and both in the repository. parts: as it comes from 0.3 on."""
    program = "cryptpilot-crypt" if parts else "cryptpilot"
    (work / "existing").mkdir()
    theirs = rpmroot.built(EXISTING, work / "existing", parts=str(int(parts)), program=program)
    manager = Dnf.machine(work / "tree")
    rpmroot.publish(theirs, manager.tree)
    typed(manager, f"{GUIDE}; systemctl enable cryptpilot.service; mkdir -p /etc/cryptpilot/volumes")
    assert typed(manager, VERSION) == THEIRS
    machines.configure(manager.tree, {"data": VOLUME}, SETTINGS)
    rpmroot.publish([*theirs, made.rpm_of("1")], manager.tree)
    return manager


def require_ours(manager: Dnf) -> None:
    """Fail unless this one is installed, and has what was configured, and its unit enabled."""
    assert typed(manager, VERSION) == OURS
    assert typed(manager, IS_ENABLED).strip() == "enabled"
    assert typed(manager, "cryptpilot show --json 2> /dev/null || :").startswith("[")
    assert (manager.tree / "etc/cryptpilot/global.toml").read_text() == SETTINGS
    modules = sorted(path.name for path in (manager.tree / "usr/lib/dracut/modules.d").glob("*cryptpilot"))
    assert modules == ["95cryptpilot"]


def test_it_is_no_downgrade_and_no_upgrade_takes_it_back(lab: None, tmp_path: Path) -> None:  # noqa: ARG001
    manager = with_existing(tmp_path, parts=False)
    # a machine whose root file system the existing tool opens keeps it
    (manager.tree / "etc/cryptpilot/fde.toml").write_text("[rootfs]\n")
    assert REFUSED in typed(manager, f"{GUIDE} || :")
    assert typed(manager, VERSION) == THEIRS
    assert (manager.tree / MODULE).exists()
    assert typed(manager, IS_ENABLED).strip() == "enabled"

    (manager.tree / "etc/cryptpilot/fde.toml").unlink()
    said = typed(manager, GUIDE)
    assert "Downgrad" not in said
    require_ours(manager)
    assert "Nothing to do." in typed(manager, "dnf upgrade --assumeyes")
    # where both are to be had
    typed(manager, f"{manager.remove}; {GUIDE}")
    assert typed(manager, VERSION) == OURS


def test_its_parts_go_when_that_is_said_and_not_before(lab: None, tmp_path: Path) -> None:  # noqa: ARG001
    manager = with_existing(tmp_path, parts=True)
    for command in (GUIDE, "dnf upgrade --assumeyes"):
        said = typed(manager, f"{command} || :")
        assert "conflicts with cryptpilot-" in said
        assert typed(manager, VERSION) == THEIRS
    typed(manager, f"{GUIDE} --allowerasing")
    require_ours(manager)
    with pytest.raises(LabError, match="not installed"):
        typed(manager, "rpm --query cryptpilot-crypt cryptpilot-fde")


DEB = """\
Package: cryptpilot
Version: 0.6.0-1
Architecture: all
Maintainer: lab <lab@localhost>
Description: the existing tool, or what it looks like to apt
"""


def test_apt_takes_it_for_no_downgrade_either(lab: None, tmp_path: Path) -> None:  # noqa: ARG001
    manager = Apt.machine(tmp_path / "tree")
    module = tmp_path / "existing" / MODULE
    module.parent.mkdir(parents=True)
    module.write_text("check() { return 255; }\n")
    (tmp_path / "existing/DEBIAN").mkdir()
    (tmp_path / "existing/DEBIAN/control").write_text(DEB)
    run(["dpkg-deb", "--root-owner-group", "--build", tmp_path / "existing", manager.tree / "opt/existing.deb"])
    typed(manager, "dpkg --install /opt/existing.deb; mkdir /etc/cryptpilot; touch /etc/cryptpilot/fde.toml")
    assert REFUSED in typed(manager, f"{manager.install('1')} || :")
    assert typed(manager, manager.version) == "0.6.0-1"
    assert (manager.tree / MODULE).exists()
    typed(manager, f"rm /etc/cryptpilot/fde.toml; {manager.install('1')}")
    assert typed(manager, manager.version) == OURS
    assert not (manager.tree / MODULE).exists()

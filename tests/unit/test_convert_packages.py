"""Packages that are given are installed by the image's own programs, and bring what it lacks or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot import paths
from cryptpilot_boot.convert import packages, payload, plan, requirements
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.foreign_root import Root
from tests.unit.test_convert_plan import FOUND, KMS, SYSTEM, VOLUME, _system

if TYPE_CHECKING:
    from collections.abc import Sequence

BARE = _system(present=SYSTEM.present - {requirements.DRACUT, requirements.CRYPTSETUP, requirements.DRACUT_NETWORK})(
    FOUND
)
"""An image as Debian's own cloud images are."""


def test_what_packages_can_bring_may_be_missing_where_some_are_given() -> None:
    roles = plan.roles(BARE.table, BARE.contents)
    with pytest.raises(CryptpilotError, match="has no /usr/bin/dracut") as refusal:
        plan.make(BARE, VOLUME, roles)
    assert "--package" in refusal.value.hint
    made = plan.make(BARE, VOLUME, roles, packages={Path("/d/dracut_059.deb"): 100})
    assert made.packages == (Path("/d/dracut_059.deb"),)
    assert "packages: dracut_059.deb" in made.lines
    assert not any("packages" in line for line in plan.make(FOUND, VOLUME, roles).lines)
    with pytest.raises(CryptpilotError, match="the root's file system has 200 MiB left"):
        plan.make(BARE, VOLUME, roles, packages={Path("/d/dracut_059.deb"): 20 << 20})


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.deb", "nothing.deb"], "nothing.deb: no such file"),
        (["a.deb", "b.rpm"], "packages of two kinds"),
        (["a.txt"], "has no name of a package"),
        (["a.deb", "more/a.deb"], "two packages of one name"),
    ],
)
def test_files_that_are_no_packages_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    (tmp_path / "more").mkdir()
    for name in names:
        if "nothing" not in name:
            (tmp_path / name).write_text("")
    with pytest.raises(CryptpilotError, match=reason):
        packages.require_files([tmp_path / name for name in names])


@pytest.mark.parametrize(("suffix", "program"), [(".deb", "env"), (".rpm", "rpm")])
def test_they_are_installed_there_and_what_they_lack_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, program: str
) -> None:
    given = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in given:
        path.write_text(path.name)
    packages.require_files(given)
    root = Root(tmp_path / "root")
    (root.path / "run").mkdir(parents=True)
    ran: list[Sequence[str]] = []

    def install(_: Root, argv: Sequence[str]) -> str:
        ran.append(argv)
        assert [root.text(path) for path in argv[-2:]] == [path.name for path in given]
        root.write(requirements.DRACUT, b"", 0o755)
        root.write(str(paths.MANIFEST), b"", 0o644)
        return ""

    monkeypatch.setattr(Root, "run", install)
    assert not payload.is_in(root)
    with pytest.raises(CryptpilotError, match="it has no /usr/sbin/cryptsetup, even with the given packages"):
        packages.install(root, given, VOLUME)
    assert [argv[0] for argv in ran] == [program]
    assert payload.is_in(root)
    assert list((root.path / "run").iterdir()) == []
    root.write(requirements.CRYPTSETUP, b"", 0o755)
    packages.install(root, given, VOLUME)
    with pytest.raises(CryptpilotError, match="40network, even with the given packages"):
        packages.install(root, given, KMS)

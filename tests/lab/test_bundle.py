"""What a build in another release sees of this machine's pip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab import bundle

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_indexes_and_packages_on_this_machine_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mirror/simple", "mirror/files", "wheels", "more", "not-named"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ca.pem").touch()
    settings = f"""\
:env:.cert='{tmp_path}/ca.pem'
global.extra-index-url='\\nhttps://index.invalid{tmp_path}/not-named file://{tmp_path}/mirror/simple/'
global.find-links='\\n{tmp_path}/wheels\\n{tmp_path}/more\\n{tmp_path}/not-there'
"""
    monkeypatch.setattr(bundle, "run", lambda _: settings)
    found = {path for path in bundle.packages() if tmp_path in path.parents}
    assert found == {tmp_path / name for name in ("ca.pem", "mirror", "wheels", "more")}


def test_nothing_is_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels/more").mkdir(parents=True)
    monkeypatch.setattr(bundle, "run", lambda _: f"global.find-links='{tmp_path}/wheels {tmp_path}/wheels/more'")
    assert [path for path in bundle.packages() if tmp_path in path.parents] == [tmp_path / "wheels"]

"""What converting does to files: none outside of the image's root, and all that is installed here goes into it."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from buildlib import layout
from cryptpilot_boot.commands import convert
from cryptpilot_boot.config import Boot, Config, Exec, Kms, Volume
from cryptpilot_boot.convert import payload
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.keys import given
from cryptpilot_boot.system import clone, mounts
from cryptpilot_boot.system.foreign_root import Root
from tests.unit import test_build_layout

KMS = Kms("kst-x", "disk", "", "", "")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("outside")
    (tmp_path / "root/lib").symlink_to("usr/lib")
    return Root(tmp_path / "root")


@pytest.mark.parametrize(
    "target", ["/", "/../../../..", "../../..", "{outside}", "/etc/../../outside", "lib/../../outside"]
)
def test_no_link_leads_out_of_a_root(root: Root, target: str) -> None:
    """Neither for what is read nor for what is written."""
    outside = root.path.parent / "outside"
    (root.path / "trap").symlink_to(target.format(outside=outside))
    assert root.place("/trap/secret").is_relative_to(root.path)
    assert root.text("/trap/secret") == ""
    root.write("/trap/file", b"inside", 0o600)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert root.text("/trap/file") == "inside"


def test_a_file_that_is_a_link_is_replaced_and_not_written_through(root: Root) -> None:
    outside = root.path.parent / "outside/secret"
    (root.path / "file").symlink_to(outside)
    root.write("/file", b"inside", 0o644)
    assert (outside.read_text(), root.text("/file")) == ("outside", "inside")
    assert not (root.path / "file").is_symlink()


def test_links_are_followed_as_the_system_itself_would(root: Root) -> None:
    root.write("/lib/os-release", b"ID=debian", 0o644)
    (root.path / "etc").mkdir()
    (root.path / "etc/os-release").symlink_to("/usr/lib/os-release")
    assert root.text("/etc/os-release") == "ID=debian"
    assert root.has("/lib/os-release")
    assert root.is_directory("/usr")
    assert not root.is_directory("/lib")
    assert not root.has("/lib64")


def test_links_in_a_circle_are_an_error(root: Root) -> None:
    (root.path / "a").symlink_to("b")
    (root.path / "b").symlink_to("a")
    with pytest.raises(CryptpilotError, match="too many symbolic links"):
        root.place("/a/file")


def test_what_is_no_file_or_too_long_is_not_read(root: Root) -> None:
    os.mkfifo(root.path / "pipe")
    with (root.path / "long").open("wb") as file:
        file.truncate(1 << 30)
    assert root.text("/pipe") == root.text("/long") == root.text("/nothing") == ""


def test_all_that_is_installed_goes_into_an_image(tmp_path: Path) -> None:
    """Whatever `build.py install` lays out below /usr, but for the documentation."""
    installed = tmp_path / "installed"
    layout.install(test_build_layout.make_bundle(tmp_path / "bundle", "libfoo.so.1"), installed, Path("/usr"))
    usr = installed / "usr"
    found = {path.relative_to(usr) for path in payload.files(usr)}
    there = {path.relative_to(usr) for path in usr.rglob("*") if path.is_symlink() or path.is_file()}
    assert {path for path in there if path.parts[:2] != ("share", "doc")} == found
    root = Root(tmp_path / "root")
    root.path.mkdir()
    payload.install(root, usr)
    for path in found:
        here, original = root.path / "usr" / path, usr / path
        assert here.is_symlink() == original.is_symlink()
        assert here.read_bytes() == original.read_bytes()
        assert stat.S_IMODE(here.lstat().st_mode) == stat.S_IMODE(original.lstat().st_mode)


def test_the_configuration_of_one_volume_goes_into_an_image_for_root_alone(tmp_path: Path) -> None:
    for name in ("root", "other"):
        (tmp_path / f"{name}.toml").write_text(f"# {name}")
    (tmp_path / "global.toml").write_text("[boot]")
    one = Volume("root", "/dev/x", Exec("cat"), tmp_path / "root.toml")
    root = Root(tmp_path / "image")
    root.path.mkdir()
    bound_by = payload.configure(root, Config(tmp_path, Boot(), (one,)), one)
    files = {str(path.relative_to(root.path)): path for path in root.path.rglob("*")}
    assert bound_by == root.path / "etc/cryptpilot/identities/root.toml"
    assert {name for name, path in files.items() if path.is_file()} == {
        "etc/cryptpilot/global.toml",
        "etc/cryptpilot/volumes/root.toml",
    }
    for name, path in files.items():
        if name.startswith("etc/cryptpilot"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_secret_in_a_file_is_what_the_provider_would_say(tmp_path: Path) -> None:
    key = os.urandom(256)
    file = tmp_path / "secret"
    file.write_bytes(base64.encodebytes(key))
    with given.from_file(KMS, file) as passphrase:
        assert (bytes(passphrase.reveal()), passphrase.strong) == (key, True)
    with given.from_file(Exec("cat"), file) as passphrase:
        assert bytes(passphrase.reveal()) == file.read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no base64!", "is not base64"), (b"", "is empty"), (b"\xff\xfe", "other bytes")]
)
def test_a_secret_of_another_kind_is_refused_and_not_shown(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(CryptpilotError, match=reason) as refusal:
        given.from_file(KMS, file)
    assert str(file) in refusal.value.what
    assert "no base64!" not in refusal.value.what + refusal.value.hint


def test_a_file_that_cannot_be_read_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(CryptpilotError, match="No such file"):
        given.from_file(KMS, tmp_path / "nothing")


def test_a_draft_is_removed_and_one_at_work_keeps_others_away(tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    (tmp_path / ".out.img.image.cryptpilot-new").write_text("left by one that was killed")
    with convert._draft(target, "image") as draft:
        assert draft.read_bytes() == b""
        with pytest.raises(CryptpilotError, match="is being written already"), convert._draft(target, "image"):
            pytest.fail("two at once")
        assert draft.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_one_that_was_killed_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out[1].img"
    others = [tmp_path / ".out1.img.image.cryptpilot-new", tmp_path / "out[1].img.image.cryptpilot-new"]
    left = [
        tmp_path / f".out[1].img.{what}"
        for what in ("image.cryptpilot-new", "source.cryptpilot-new.lock", "qcow2.cryptpilot-new")
    ]
    for path in (*others, *left):
        path.write_text("left")
    convert._remove_leftovers(target)
    assert sorted(tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("nothing", "out", "no such image"),
        (".", "out", "no regular file"),
        ("in", "in", "is there already"),
        ("in", "link", "is there already"),
        ("in", "nowhere/out", "no such directory"),
    ],
)
def test_paths_that_cannot_be_are_refused(tmp_path: Path, source: str, target: str, reason: str) -> None:
    (tmp_path / "in").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(CryptpilotError, match=reason):
        convert._require_paths(tmp_path / source, tmp_path / target)


def test_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clone, "is_there", lambda program: program != "xfs_copy")
    assert clone.missing(["ext4"]) == []
    assert clone.missing(["ext4", "xfs"]) == ["xfs_copy"]


def test_mounts_that_cannot_be_kept_private_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Refusing:
        @staticmethod
        def unshare(_: int) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: _Refusing)
    with pytest.raises(CryptpilotError, match="mounts cannot be kept"):
        mounts.keep_private()

"""What converting does to files: none outside of the image's root, and all that is installed here goes into it."""

from __future__ import annotations

import base64
import errno
import os
import stat
from functools import partial
from pathlib import Path

import pytest

from buildlib import layout
from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.commands import convert as command
from cryptpilot_boot.config import Boot, Config, Exec, Kms, Volume
from cryptpilot_boot.convert import loading, payload
from cryptpilot_boot.convert.facts import Kernel
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.keys import given
from cryptpilot_boot.system import (
    block,
    clone,
    mounts,
)
from cryptpilot_boot.system.foreign_root import Root, data
from cryptpilot_boot.system.run import run
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


def test_no_byte_of_a_file_is_lost(root: Root) -> None:
    """Not those that are no UTF-8, nor the ends of its lines."""
    content = b"# gr\xfc\xdfe\r\nUUID=1 / ext4\r# comment\n\xff\xfe"
    root.write("/etc/fstab", content, 0o644)
    assert data(root.text("/etc/fstab")) == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_is_changed_keeps_mode_and_owner(root: Root) -> None:
    root.write("/etc/real", b"old", 0o640)
    os.chown(root.path / "etc/real", 1234, 5678)
    (root.path / "etc/fstab").symlink_to("/etc/real")
    root.rewrite("/etc/fstab", b"new")
    status = (root.path / "etc/real").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 1234, 5678)
    assert root.text("/etc/fstab") == "new"
    assert (root.path / "etc/fstab").is_symlink()
    with pytest.raises(CryptpilotError, match="/etc/nothing in the image: cannot be written: No such file"):
        root.rewrite("/etc/nothing", b"new")


def test_what_cannot_be_written_is_said(root: Root) -> None:
    for place in ("dir/file", "file"):
        (root.path / place / "in").mkdir(parents=True)
    (root.path / "plain").write_text("")
    for name in ("/dir/file", "/file", "/plain/file"):
        for write in (partial(root.write, content=b"", mode=0o644), partial(root.link, target="to")):
            with pytest.raises(CryptpilotError, match=f"({name}|/plain) in the image: cannot be written"):
                write(name)


def test_initrds_are_looked_for_in_the_image_alone(root: Root) -> None:
    """Links and pipes in it neither lead out nor are waited for."""
    outside = root.path.parent / "outside"
    for name in ("initrd.img-6.1", "vmlinuz-6.1.efi"):
        (outside / name).write_text("of the host")
    (root.path / "boot").symlink_to(outside)
    (root.path / "etc/kernel").mkdir(parents=True)
    os.mkfifo(root.path / "etc/kernel/entry-token")
    (root.path / "etc/machine-id").symlink_to(outside / "secret")
    (root.path / "lib/modules/6.1").mkdir(parents=True)
    (root.path / "lib/modules/6.1/modules.dep").write_text("")
    assert loading.kernels(root) == (Kernel("6.1", ()),)
    (root.path / "boot").unlink()
    (root.path / "boot/EFI/Linux").mkdir(parents=True)
    (root.path / "boot/images").mkdir()
    (root.path / "boot/images/first").write_text("")
    (root.path / "boot/initrd.img-6.1").symlink_to("/boot/images/first")
    assert loading.kernels(root) == (Kernel("6.1", ("boot/initrd.img-6.1",)),)
    (root.path / "boot/EFI/Linux/debian-6.1.efi").write_text("")
    assert loading.kernels(root) == (Kernel("6.1", ("boot/initrd.img-6.1",), unified=True),)


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


@pytest.mark.parametrize(
    ("mode", "who"),
    [(0o600, ""), (0o400, ""), (0o711, ""), (0o640, "its group"), (0o604, "every user"), (0o644, "every user")],
)
def test_who_else_may_read_a_secret_is_said_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: int, who: str
) -> None:
    """And it is used all the same."""
    file = tmp_path / "secret"
    file.write_text("value")
    file.chmod(mode)
    arguments = parse(["convert", "in.img", "out.img", "--volume=root", f"--secret-file={file}"])
    monkeypatch.setattr(command, "convert", lambda *_: True)
    assert arguments.run(Config(tmp_path, Boot(), ()), arguments)
    said = capsys.readouterr().err
    assert said == (f"cryptpilot: warning: {given.exposure(file)}\n" if who else "")
    assert who in said


def test_a_pipe_with_a_secret_is_for_who_made_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)
    (tmp_path / "pipe").chmod(0o644)
    assert given.exposure(tmp_path / "pipe") == given.exposure(tmp_path / "nothing") == ""


def test_a_file_that_cannot_be_read_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(CryptpilotError, match="No such file"):
        given.from_file(KMS, tmp_path / "nothing")


def test_of_what_a_program_says_no_more_is_kept_than_is_wanted() -> None:
    """A check of a damaged file system can say a line for each file."""
    status, output = run(["seq", "100000"], keep=20)
    assert (status, len(output)) == (0, 20)
    assert output.endswith("\n99999\n100000\n")
    with pytest.raises(ProgramError, match="the last line"):
        run(["sh", "-c", "seq 100000; echo the last line; exit 1"], keep=20)


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


@pytest.mark.needs("mkfs.ext4")
def test_what_a_device_did_not_take_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that copy write to memory, and close: only fsync(2) tells that the disk was full."""
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        with path.open("wb") as file:
            file.truncate(16 << 20)
    run(["mkfs.ext4", "-q", str(source)])
    real, flushed = os.fsync, []

    def refuse(descriptor: int) -> None:
        real(descriptor)
        flushed.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DeviceError, match="target: not all could be written: Input/output error"):
        clone.copy("ext4", str(source), str(target), tmp_path)
    assert flushed == [target]
    monkeypatch.setattr(os, "fsync", real)
    block.flush(str(target))

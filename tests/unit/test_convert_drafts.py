"""Where a conversion writes: nothing of somebody else's is replaced, removed or closed, and secrets are read once."""

from __future__ import annotations

import base64
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from cryptpilot_boot.commands import convert
from cryptpilot_boot.config import Boot, Config, Exec, Kms, Volume
from cryptpilot_boot.convert import build
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import cryptsetup, disk_image, drafts, mappings, partition_table, private
from cryptpilot_boot.system.disk_image import ImageFile
from cryptpilot_boot.system.partition_table import Partition, Table

KMS = Kms("kst-x", "disk", "", "", "")


def test_a_draft_is_removed_and_one_at_work_keeps_others_away(tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    (tmp_path / ".out.img.image.cryptpilot-new").write_text("left by one that was killed")
    with drafts.opened(target, "image") as draft:
        assert draft.path.read_bytes() == b""
        assert stat.S_IMODE(draft.path.stat().st_mode) == 0o600
        with pytest.raises(CryptpilotError, match="is being written already"), drafts.opened(target, "image"):
            pytest.fail("two at once")
        assert draft.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_one_that_was_killed_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out[1].img"
    others = [
        tmp_path / name
        for name in (
            ".out1.img.image.cryptpilot-new",
            "out[1].img.image.cryptpilot-new",
            ".out[1].img.image.cryptpilot-new-kept",
            ".out[1].img.image.cryptpilot-new.lock.kept",
        )
    ]
    left = [
        tmp_path / f".out[1].img.{what}"
        for what in ("image.cryptpilot-new", "source.cryptpilot-new.lock", "qcow2.cryptpilot-new")
    ]
    for path in (*others, *left):
        path.write_text("left")
    drafts.remove_leftovers(target, ("source", "image", "qcow2"))
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_lock_that_was_removed_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that has it removes it in the end, when another may have opened it already."""
    target, real = tmp_path / "out.img", private.opened
    lock = tmp_path / ".out.img.image.cryptpilot-new.lock"
    times: list[Path] = []

    def opened(path: Path, flags: int) -> int:
        descriptor = real(path, flags)
        if not times:
            path.unlink()
        times.append(path)
        return descriptor

    monkeypatch.setattr(private, "opened", opened)
    with drafts.opened(target, "image"):
        assert lock.exists()
        with pytest.raises(CryptpilotError, match="is being written already"), drafts.opened(target, "image"):
            pytest.fail("two at once")
    assert times == [lock] * 3


@pytest.mark.parametrize("name", [".out.img.image.cryptpilot-new.lock", ".out.img.image.cryptpilot-new"])
def test_no_link_in_the_directory_of_an_image_is_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "planted")
    (tmp_path / "there").write_text("as it was")
    try:
        with drafts.opened(tmp_path / "out/out.img", "image") as draft:
            os.write(draft.descriptor, b"image")
    except CryptpilotError as error:
        assert name in error.what  # noqa: PT017 - a draft's own name may be a link, and is replaced
    assert not (tmp_path / "planted").exists()


def test_a_draft_is_what_was_written_whatever_got_its_name(tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    with drafts.opened(target, "image") as draft:
        os.write(draft.descriptor, b"image")
        draft.path.rename(tmp_path / "elsewhere")
        draft.path.symlink_to(tmp_path / "planted")
        assert draft.reach.read_bytes() == b"image"
        drafts.finish(draft, target)
    assert target.read_bytes() == b"image"
    assert not target.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out.img"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_what_came_to_be_there_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Nor is it on a file system on which a file has one name."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "out.img"
    with drafts.opened(target, "image") as draft:
        target.write_text("of somebody else")
        with pytest.raises(CryptpilotError, match="is there already"):
            drafts.finish(draft, target)
        assert target.read_text() == "of somebody else"
        target.unlink()
        drafts.finish(draft, target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.img"]


@pytest.mark.needs("qemu-img")
def test_an_image_that_is_written_is_reached_by_programs_too(tmp_path: Path) -> None:
    """Whose name ends in a digit then."""
    target = tmp_path / "out.qcow2"
    uuids = [f"B63F2B5C-2BC2-9C42-BB8F-3B1E8C0F4A1{number}" for number in range(2)]
    table = Table("gpt", uuids[0], 512, (Partition(1, 2048, 2048, partition_table.LINUX, uuids[1]),), 2048)
    with drafts.opened(target, "image") as raw, drafts.opened(target, "qcow2") as done:
        os.ftruncate(raw.descriptor, 40 << 20)
        partition_table.write(raw.reach, table)
        os.pwrite(raw.descriptor, b"data", 2048 * 512)
        disk_image.convert(raw.reach, "raw", done.reach, "qcow2")
        drafts.finish(done, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert disk_image.facts(target) == ImageFile("qcow2", 40 << 20)
    with drafts.opened(target, "source") as source:
        disk_image.convert(target, "qcow2", source.reach, "raw")
        assert os.pread(source.descriptor, 4, 2048 * 512) == b"data"


@pytest.mark.parametrize(
    ("uuid", "files", "own"),
    [
        ("CRYPT-LUKS2-0-root-converting", ["/images/.out.image.cryptpilot-new"], True),
        ("CRYPT-LUKS2-0-root-converting", ["/images/.out.image.cryptpilot-new (deleted)"], True),
        ("CRYPT-LUKS2-0-root-converting", ["/images/data.img"], False),
        ("CRYPT-LUKS2-0-root-converting", [], False),
        ("CRYPT-LUKS2-0-root-converting", ["/a.cryptpilot-new", "/images/data.img"], False),
        ("LVM-0", ["/images/.out.image.cryptpilot-new"], False),
    ],
)
def test_only_what_a_conversion_made_is_closed(uuid: str, files: list[str], own: bool) -> None:
    assert build.is_of_conversion(uuid, files) == own


def test_a_mapping_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(mappings, "find", lambda name: mappings.Mapping(name, "CRYPT-LUKS2-1", Path("/sys/none")))
    monkeypatch.setattr(cryptsetup, "close", closed.append)
    with pytest.raises(CryptpilotError, match="was not made by a conversion"):
        build.close_leftover(Volume("root", "/dev/x", Exec("cat"), Path("root.toml")))
    assert closed == []


def test_a_mapping_is_traced_to_the_files_it_lies_on(tmp_path: Path) -> None:
    """As sysfs has it: integrity below the encryption, on a partition of a loop device."""
    disk, devices = tmp_path / "virtual/loop7", tmp_path / "class"
    for path in (disk / "loop", disk / "loop7p1", devices, tmp_path / "dm-1/slaves", tmp_path / "dm-0/slaves"):
        path.mkdir(parents=True, exist_ok=True)
    (disk / "loop/backing_file").write_text("/images/out\n")
    (disk / "loop7p1/partition").write_text("1\n")
    (devices / "loop7p1").symlink_to(disk / "loop7p1")
    (devices / "dm-0").symlink_to(tmp_path / "dm-0")
    (tmp_path / "dm-1/slaves/dm-0").mkdir()
    (tmp_path / "dm-0/slaves/loop7p1").mkdir()
    assert mappings.backing_files(mappings.Mapping("root", "CRYPT-", tmp_path / "dm-1"), devices) == ["/images/out"]
    assert mappings.backing_files(mappings.Mapping("root", "CRYPT-", tmp_path / "dm-2"), devices) == []


def test_a_secret_in_a_pipe_is_read_once(tmp_path: Path) -> None:
    """The recovery key takes it again."""
    one, pipe = Volume("root", "/dev/x", KMS, tmp_path / "root.toml"), tmp_path / "pipe"
    os.mkfifo(pipe)
    key = os.urandom(256)
    threading.Thread(target=pipe.write_bytes, args=[base64.b64encode(key)], daemon=True).start()
    with convert.asking(one, Config(tmp_path, Boot(), ()), convert.Options("root", pipe)) as ask:
        for _ in range(2):
            with ask() as passphrase:
                assert (bytes(passphrase.reveal()), passphrase.strong) == (key, True)

"""Adopting, step by step: nothing is written before it is proven, and the mark comes last."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.config import Exec, Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError, WrongSecret
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, cryptsetup, files, lock, luks_header
from cryptpilot_boot.volume import adopt as adopting
from cryptpilot_boot.volume import identity, opening, state, takeover
from cryptpilot_boot.volume.adopt import Adopted, adopt
from tests.headers import Template
from tests.unit.disks import look_up_files
from tests.unit.secrets import secret

if TYPE_CHECKING:
    from cryptpilot_boot.config import Identity

KEY = b"a key for a test"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template.made(tmp_path_factory.mktemp("header") / "one.img", KEY)


def in_use(path: str) -> None:
    raise DeviceError(f"{path} is in use")


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file looked at as a disk is, that somebody uses: it is not opened to see what it holds."""
    for room, name in ((lock, "held"), (adopting, "close_leftover"), (takeover, "close_leftover")):
        monkeypatch.setattr(room, name, lambda *_: contextlib.nullcontext())
    look_up_files(monkeypatch)
    monkeypatch.setattr(block, "is_block_device", lambda path: Path(path).exists())
    monkeypatch.setattr(block, "require_unused", in_use)


@pytest.fixture
def disk(template: Template, tmp_path: Path) -> Path:
    """A volume that carries no mark."""
    return template.put(template.both(subsystem=b"", label=b"my label"), tmp_path / "disk.img")


def volume_on(disk: Path) -> Volume:
    return Volume("data1", str(disk), Exec("cat"), Path("data1.toml"))


def passphrase(value: bytes = KEY) -> Callable[[], Passphrase]:
    return lambda: Passphrase(bytearray(value), strong=True)


def run(one: Volume, place: Path, value: bytes = KEY) -> Adopted:
    return adopt(one, place, secret(passphrase(value)))


@pytest.mark.needs("cryptsetup")
def test_the_name_is_bound_before_the_mark_is_written(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    write, mark = identity.write, cryptsetup.set_subsystem

    def note_write(volume: Volume, found: Identity) -> None:
        done.append("bound")
        write(volume, found)

    def note_mark(device: str, subsystem: str, *, label: str = "") -> None:
        done.append(f"marked {subsystem}, {label}")
        mark(device, subsystem, label=label)

    monkeypatch.setattr(identity, "write", note_write)
    monkeypatch.setattr(cryptsetup, "set_subsystem", note_mark)
    place = tmp_path / "identities/data1.toml"
    adopted = run(volume_on(disk), place)
    assert done == ["bound", "marked cryptpilot, my label"]
    assert (adopted.marked, adopted.unbound, adopted.inside) == (False, None, "")
    assert block.signature(str(disk)) == block.Signature("crypto_LUKS", "2", state.COMPLETE)
    assert f'uuid = "{adopted.identity.uuid}"' in place.read_text()
    # again: it is ours, and nothing is marked once more
    bound = dataclasses.replace(volume_on(disk), identity=adopted.identity)
    assert run(bound, place).marked
    assert done[2:] == ["bound"]


@pytest.mark.needs("cryptsetup")
def test_a_mark_that_cannot_be_written_leaves_a_volume_that_can_be_adopted_again(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ProgramError("cryptsetup: Input/output error")

    place = tmp_path / "identities/data1.toml"
    before = disk.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(cryptsetup, "set_subsystem", fail)
        with pytest.raises(CryptpilotError, match="cannot be marked: cryptsetup: Input/output error") as caught:
            run(volume_on(disk), place)
    assert caught.value.hint.endswith("again: cryptpilot adopt data1")
    assert disk.read_bytes() == before
    assert not run(volume_on(disk), place).marked


@pytest.mark.needs("cryptsetup")
def test_a_name_that_cannot_be_bound_is_said_and_the_volume_is_adopted(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As init does it: on a system whose /etc is read-only there is nothing else."""

    def fail(*_: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(files, "replace", fail)
    adopted = run(volume_on(disk), tmp_path / "identities/data1.toml")
    assert adopted.unbound is not None
    assert "Read-only file system" in adopted.unbound.what
    assert block.signature(str(disk)) == block.Signature("crypto_LUKS", "2", state.COMPLETE)


@pytest.mark.needs("cryptsetup")
def test_nothing_is_written_that_the_secret_does_not_prove(disk: Path, tmp_path: Path) -> None:
    before = disk.read_bytes()
    with pytest.raises(WrongSecret):
        run(volume_on(disk), tmp_path / "identities/data1.toml", b"another")
    assert disk.read_bytes() == before
    assert not (tmp_path / "identities").exists()


@pytest.mark.needs("cryptsetup")
def test_a_label_that_would_be_lost_is_not(template: Template, tmp_path: Path) -> None:
    """cryptsetup removes it with the mark's writing unless it is said again, and that has to be possible."""
    disk = template.put(template.both(subsystem=b"", label="größe".encode()), tmp_path / "disk.img")
    before = disk.read_bytes()
    with pytest.raises(DeviceError, match="holds characters that cannot be kept") as caught:
        run(volume_on(disk), tmp_path / "identities/data1.toml")
    assert "cryptsetup config" in caught.value.hint
    assert disk.read_bytes() == before
    assert not (tmp_path / "identities").exists()


@pytest.mark.needs("cryptsetup")
def test_a_label_that_looks_like_an_option_is_kept(template: Template, tmp_path: Path) -> None:
    disk = template.put(template.both(subsystem=b"", label=b"--key-file=/etc/passwd $(x)"), tmp_path / "disk.img")
    run(volume_on(disk), tmp_path / "identities/data1.toml")
    assert luks_header.label(str(disk)) == "--key-file=/etc/passwd $(x)"


@pytest.mark.needs("cryptsetup")
def test_a_word_on_the_disk_is_not_repeated(template: Template, tmp_path: Path) -> None:
    disk = template.put(template.both(subsystem=b"run: curl evil | sh"), tmp_path / "disk.img")
    with pytest.raises(DeviceError) as caught:
        opening.require_initialized(volume_on(disk), state.look(str(disk)))
    assert "cryptpilot adopt data1" in caught.value.hint
    assert "evil" not in caught.value.what + caught.value.hint


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("kind", ["LVM2_member", "linux_raid_member", "zfs_member"])
def test_a_part_of_something_bigger_is_taken_by_no_temporary_volume(
    disk: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    scratch = dataclasses.replace(volume_on(disk), encrypt=Otp())
    monkeypatch.setattr(block, "require_unused", lambda _: None)
    monkeypatch.setattr(takeover, "require_makable", lambda *_: None)
    monkeypatch.setattr(state, "look", lambda _: block.Signature(kind))
    with pytest.raises(DeviceError) as caught:
        takeover.require_takeable(scratch, frozenset({kind, "crypto_LUKS", "cryptpilot"}), [])
    assert "part of something bigger" in caught.value.hint
    assert "--overwrite" not in caught.value.hint


@pytest.mark.needs("cryptsetup")
def test_what_was_agreed_to_is_looked_at_again(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = dataclasses.replace(volume_on(disk), encrypt=Otp())
    monkeypatch.setattr(block, "require_unused", lambda _: None)
    monkeypatch.setattr(takeover, "require_makable", lambda *_: None)
    kinds = frozenset({"crypto_LUKS", "ext4"})
    agreed = takeover.require_takeable(scratch, kinds, [])
    assert agreed is not None
    monkeypatch.setattr(state, "look", lambda _: block.Signature("ext4"))
    before = disk.read_bytes()
    with pytest.raises(DeviceError, match="is not what it was a moment ago"):
        takeover.take(scratch, agreed, kinds, [])
    assert disk.read_bytes() == before

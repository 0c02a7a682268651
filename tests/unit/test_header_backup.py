"""Backups of headers in files: none is lost to another run or taken for whole when it is not; any file may be named."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cryptpilot_boot.commands import header as commands
from cryptpilot_boot.config import Boot, Config, Kms
from cryptpilot_boot.config.model import Volume
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.keys.secret import Known
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, header_file, lock, process
from cryptpilot_boot.volume import backup, header, require_restorable, restore, state
from tests.headers import DATA, SECOND, Template
from tests.unit.disks import look_up_files

KEY = b"a key for a test"
CHECKOUT = Path(__file__).resolve().parents[2]
MEMORY = 2 << 30
"""Bytes a process may take that is to read a file without an end."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template.made(tmp_path_factory.mktemp("header") / "disk.img", KEY)


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file looked at as a disk is."""
    for room, name in ((block, "require_unused"), (lock, "held"), (header, "close_leftover")):
        monkeypatch.setattr(room, name, lambda *_: contextlib.nullcontext())
    look_up_files(monkeypatch)
    monkeypatch.setattr(state, "look", lambda _: block.Signature("crypto_LUKS", "2", state.COMPLETE))


@pytest.fixture
def disk(template: Template, tmp_path: Path) -> Volume:
    image = template.put(template.both(), tmp_path / "disk.img", 32 << 20)
    return Volume("data1", str(image), Kms("kst-1", "secret", "{}", "password", "pem"), Path("data1.toml"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Name a file that is to be the only one in its directory."""
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept" / "data1.header"


def no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")  # as vfat has it


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no links":
        monkeypatch.setattr(os, "link", no_links)


def is_whole(disk: Volume, path: Path) -> bool:
    """Tell whether a file holds what the disk begins with."""
    with Path(disk.dev).open("rb") as source:
        return path.read_bytes() == source.read(DATA)


@pytest.mark.needs("cryptsetup")
@pytest.mark.usefixtures("links")
def test_a_backup_is_whole_and_its_owners_alone(disk: Volume, place: Path) -> None:
    backup(disk, place)
    assert is_whole(disk, place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o400
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.needs("cryptsetup")
@pytest.mark.usefixtures("links")
def test_all_of_it_is_on_the_disk_under_one_name(disk: Volume, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync
    synced: list[Path] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert path.is_dir() is (len(synced) == 1)
        synced.extend(path.iterdir() if path.is_dir() else [path])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    backup(disk, place)
    assert synced[1:] == [place]
    assert synced[0].parent == place.parent


@pytest.mark.needs("cryptsetup")
@pytest.mark.usefixtures("links")
def test_of_two_runs_one_says_that_the_file_is_there_and_leaves_it_alone(disk: Volume, place: Path) -> None:
    with (
        pytest.raises(CryptpilotError, match=r"data1\.header: is there already, and no backup is overwritten"),
        header_file.saving(disk.dev, place, DATA),
    ):
        backup(disk, place)  # which begins later, and ends earlier
    assert is_whole(disk, place)
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.needs("cryptsetup")
@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("there", ["file", "directory", "dangling link"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nothing_is_written_over(disk: Volume, place: Path, there: str, when: str) -> None:
    def make() -> None:
        if there == "file":
            place.write_text("precious")
        elif there == "directory":
            place.mkdir()
        else:
            place.symlink_to("nowhere")

    if when == "before":
        make()
    with pytest.raises(CryptpilotError, match="is there already"), header_file.saving(disk.dev, place, DATA):
        make()
    assert [(path, path.is_dir(), path.is_symlink()) for path in place.parent.iterdir()] == [
        (place, there == "directory", there == "dangling link")
    ]
    assert there != "file" or place.read_text() == "precious"


@pytest.mark.needs("cryptsetup")
def test_what_is_not_the_devices_header_never_gets_the_name(
    disk: Volume, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody changes the header meanwhile."""
    sync = os.fsync

    def spoil(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert not place.exists()
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(path.read_bytes().replace(b"aes-xts", b"aes-cbc"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(CryptpilotError, match="the written file is not the header of"):
        backup(disk, place)
    assert list(place.parent.iterdir()) == []


FAILING: dict[str, list[tuple[object, str]]] = {
    "copy": [(os, "pwrite")],
    "sync": [(os, "fsync")],
    "name": [(os, "link"), (Path, "rename")],  # the second where the first is not to be had
}


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("step", FAILING)
def test_of_what_fails_nothing_is_left(disk: Volume, place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    work = os.pwrite

    def fail(*arguments: Any) -> int:
        if step == "copy":
            written = work(*arguments)
            if Path(f"/proc/self/fd/{arguments[0]}").readlink().parent != place.parent:
                return written  # to the copy of the header in memory
        raise OSError(28, "No space left on device")

    for owner, name in FAILING[step]:
        monkeypatch.setattr(owner, name, fail)
    with pytest.raises(CryptpilotError, match=r"data1\.header: cannot be written: No space left on device"):
        backup(disk, place)
    assert list(place.parent.iterdir()) == []


@pytest.mark.needs("cryptsetup")
def test_a_name_that_was_taken_in_vain_is_given_back(
    disk: Volume, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CryptpilotError, match=r"data1\.header: cannot be written: Input/output error"):
        backup(disk, place)
    assert list(place.parent.iterdir()) == []


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/file", "nowhere/file: cannot be written: No such file or directory"),
        ("x" * 300, "x: cannot be written: File name too long"),
    ],
)
def test_a_place_that_takes_no_file_is_told_by_its_name(disk: Volume, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(CryptpilotError, match=said):
        backup(disk, tmp_path / name)


def loads(path: Path | str) -> str:
    """Return what is said of a file that is no backup, by a process that may not take much memory."""
    code = (
        "import pathlib, sys\nfrom cryptpilot_boot.errors import CryptpilotError\n"
        "from cryptpilot_boot.system import header_file\n"
        "try:\n    header_file.load(pathlib.Path(sys.argv[1]))\n"
        "except CryptpilotError as error:\n    print(error.what, error.hint, sep='; ')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
        cwd=CHECKOUT,
        preexec_fn=limit_memory,
    )
    return done.stdout


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # what is in a memfd is not counted above
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))


HINT = "give a file that cryptpilot header backup wrote\n"


def test_any_file_may_be_named_and_is_told_for_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("/dev/zero", "/dev/null", tmp_path / "pipe", tmp_path):
        assert loads(path) == f"{path}: is not a backup of a header: it is neither file nor block device; {HINT}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert loads(tmp_path / "socket") == f"{tmp_path}/socket: cannot be read: No such device or address; {HINT}"
    assert "loop: cannot be read: Too many levels of symbolic links" in loads(tmp_path / "loop")
    with (tmp_path / "large").open("wb") as large:
        large.truncate((256 << 20) + 1)
    assert f"large: is not a backup of a header: it has 256 MiB; {HINT}" in loads(tmp_path / "large")


def test_of_a_file_that_grows_no_more_is_read_than_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "growing"
    path.write_bytes(os.urandom(3 << 20))
    size = (1 << 20) + 5
    for end in (size, 4 << 20):  # it may become shorter, too
        monkeypatch.setattr(os, "lseek", lambda *_, end=end: end)
        with header_file.load(path) as read:
            assert Path(read.path).read_bytes() == path.read_bytes()[:end]


NOTHING_CHANGED = "nothing was changed; put back another backup, if there is one"


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ({4096: b"x"}, "{} is no whole backup: the LUKS2 header is damaged: no copy of it is whole"),
        ({}, "{} is no whole backup: the LUKS2 header is invalid (ValueError)"),
    ],
)
def test_a_damaged_backup_is_told_by_its_name(
    disk: Volume, template: Template, tmp_path: Path, pieces: dict[int, bytes], said: str
) -> None:
    whole = template.both()
    size = 2 * SECOND if not pieces else DATA  # without its key slots, or without a checksum that is right
    pieces = {**whole, **pieces, **({SECOND: bytes(SECOND)} if pieces else {})}
    damaged = template.put(pieces, tmp_path / "damaged.header", size)
    with pytest.raises(CryptpilotError) as caught:
        require_restorable(disk, damaged, frozenset())
    assert (caught.value.what, caught.value.hint) == (said.format(damaged), NOTHING_CHANGED)


@pytest.mark.needs("cryptsetup")
def test_a_backup_that_is_cut_off_behind_its_key_slots_is_told_by_its_name(
    disk: Volume, template: Template, tmp_path: Path
) -> None:
    cut = template.put(template.both(), tmp_path / "cut.header", 1 << 20)
    agreed = require_restorable(disk, cut, frozenset())
    with pytest.raises(CryptpilotError, match=f"cryptsetup: Device {cut} is too small"):
        restore(disk, cut, agreed, frozenset(), None)


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("by_recovery_key", [False, True])
def test_a_key_that_a_backup_does_not_take_is_called_what_it_is(
    disk: Volume, place: Path, by_recovery_key: bool
) -> None:
    backup(disk, place)
    agreed = require_restorable(disk, place, frozenset())
    assert agreed.proven
    with pytest.raises(CryptpilotError) as caught:
        restore(
            disk,
            place,
            agreed,
            frozenset(),
            Known(Passphrase(b"another", strong=True)),
            by_recovery_key=by_recovery_key,
        )
    said = f"{caught.value.what}; {caught.value.hint}"
    assert said.startswith(
        f"no key slot in {place} takes this recovery key, so nothing proves that the file opens {disk.dev};"
        if by_recovery_key
        else f"{place} is older than the secret: none of its key slots takes the secret"
    )
    assert ("if you have a recovery key" in said) is not by_recovery_key
    assert ("older" in said) is not by_recovery_key


@pytest.mark.needs("cryptsetup")
def test_a_recovery_key_is_wiped_once_the_header_was_restored(
    disk: Volume, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(disk, place)
    monkeypatch.setattr(commands, "select", lambda *_: [disk])
    monkeypatch.setattr(process, "lock_memory", lambda: None)
    key = Passphrase(b"another", strong=True)
    told: list[object] = []
    restored = commands.restore(
        Config(Path(), Boot(), (disk,)),
        "data1",
        place,
        lambda _, result: told.append(result),
        lambda _: True,
        overwrite=frozenset(),
        force=False,
        ask_key=lambda _: key,
    )
    assert not restored
    assert "takes this recovery key" in str(told)
    assert not any(key.reveal())

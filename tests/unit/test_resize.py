"""Growing a volume, without devices: how much there is to take, who may take it, and what is said."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable

import pytest

from cryptpilot_boot.config import Exec, Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.keys import Passphrase
from cryptpilot_boot.system import (
    block,
    cryptsetup,
    growfs,
    integrity,
    lock,
    luks_data,
    luks_header,
    mappings,
    partition,
)
from cryptpilot_boot.volume import growth, opened, resize, state
from cryptpilot_boot.volume.growth import Growth
from tests.headers import Template
from tests.unit.secrets import secret

MIB = 1 << 20
GIB = 1 << 30
ONE = Volume("data1", "/dev/vdb", Exec("cat"), Path("/etc/cryptpilot/volumes/data1.toml"))
MAPPER = "/dev/mapper/data1"


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> luks_header.Header:
    image = Template.made(tmp_path_factory.mktemp("header") / "disk.img", b"key").image
    return luks_header.copy_from(str(image))[0]


@pytest.mark.needs("cryptsetup")
def test_the_data_are_whole_sectors(header: luks_header.Header) -> None:
    data = luks_data.find(header)
    assert data == luks_data.Data(16 * MIB, 4096, integrity=False)
    for size, room in ((0, 0), (16 * MIB, 0), (16 * MIB + 4095, 0), (16 * MIB + 4096, 4096), (GIB, GIB - 16 * MIB)):
        assert data.room(size) == room
        assert luks_data.excess(header, size) == max(0, size - 16 * MIB - room)
    assert data.room(GIB + 4095) == GIB - 16 * MIB


def superblock(interleave: int, tag: int, sections: int, provided: int, block_shift: int) -> bytes:
    return struct.pack("<8sBBHLQLB", b"integrt\0", 4, interleave, tag, sections, provided, 8, block_shift)


@pytest.mark.parametrize(
    ("content", "used"),
    [
        # of disks of 256 MiB, as cryptsetup 2.6 and 2.7 lay them out: the next sector would not fit
        (superblock(15, 32, 15, 483712, 3), 256 * MIB),
        (superblock(15, 32, 46, 458752, 0), 256 * MIB - 40 * 512),
    ],
)
def test_what_integrity_uses_is_computed_to_the_sector(tmp_path: Path, content: bytes, used: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096) + content)
    assert integrity.used(str(disk), 4096) == used - 16 * MIB + 4096


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(512),
        superblock(15, 32, 15, 483712, 3)[:-1],
        superblock(255, 32, 15, 483712, 3),
        superblock(15, 32, 15, 483712, 200),
        superblock(2, 32, 15, 483712, 3),
        superblock(15, 32, 15, 0, 3),
    ],
)
def test_a_superblock_that_makes_no_sense_is_an_error(tmp_path: Path, content: bytes) -> None:
    """It is the disk's word."""
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    with pytest.raises(DeviceError):
        integrity.used(str(disk), 0)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Growth(0, 0, fixed=False), ""),
        (Growth(0, 0, fixed=True), ""),
        (
            Growth(10 * GIB, 0, fixed=False),
            "its device is 10 GiB larger than the volume; grow it: cryptpilot resize data1",
        ),
        (Growth(10 * GIB, 0, fixed=True), "its device is 10 GiB larger than the volume, which has integrity and keeps"),
        (Growth(-GIB, 0, fixed=False), "its device is 1 GiB smaller than the volume: what was there cannot be read"),
        (Growth(0, GIB, fixed=False), "its disk has 1 GiB free behind the partition /dev/vdb; grow the partition"),
        (Growth(0, GIB, fixed=True), "its disk has 1 GiB free behind the partition /dev/vdb, which a volume with"),
        (Growth(GIB, 2 * GIB, fixed=False), "its device is 1 GiB larger than the volume; grow it"),
    ],
)
def test_what_there_is_to_take_is_said(found: Growth, said: str) -> None:
    told = growth.describe(ONE, found)
    assert told.startswith(said)
    assert bool(told) == bool(said)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw
23 22 254:1 /sub /mnt/bind rw - xfs /dev/mapper/data1 rw
24 22 254:1 / /mnt/a\\040b\\134c rw - xfs /dev/mapper/data1 rw
25 22 254:11 / /mnt/other rw - xfs /dev/mapper/other rw
"""


def test_a_mount_point_is_found_whatever_its_name(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    found = {number: growfs.mount_point(number, mounts) for number in ("254:0", "254:1", "254:11", "54:1")}
    assert found == {"254:0": "/", "254:1": "/mnt/a b\\c", "254:11": "/mnt/other", "54:1": ""}


@pytest.mark.parametrize(
    ("kind", "mounted", "commands"),
    [
        ("ext4", "/mnt", [["resize2fs", MAPPER]]),
        ("ext4", "", [["e2fsck", "-f", "-p", MAPPER], ["resize2fs", MAPPER]]),
        ("xfs", "/mnt", [["xfs_growfs", "/mnt"]]),
        ("xfs", "", []),
    ],
)
def test_a_file_system_grows_by_its_own_tool(
    monkeypatch: pytest.MonkeyPatch, kind: str, mounted: str, commands: list[list[str]]
) -> None:
    ran = []
    monkeypatch.setattr(growfs, "run", lambda command, **_: ran.append([*command]))
    assert growfs.grow(kind, MAPPER, mounted) == bool(commands)
    assert ran == commands


class Machine:
    """A volume that is open, and what is done to it."""

    def __init__(self) -> None:
        self.size = 48 * MIB
        self.found = Growth(32 * MIB, 0, fixed=False)
        self.holds: block.Signature | None = block.Signature("ext4")
        self.open = True
        self.key = "the key"
        self.secret = b"new"
        self.done: list[str] = []

    def look_up(self, path: str) -> block.Device:
        return block.Device(path, path, "254:0", "1", self.size, "")

    def resize(self, name: str, passphrase: Passphrase, _: object, sectors: int) -> None:
        if bytes(passphrase.reveal()) != self.secret:
            raise ProgramError("cryptsetup: No key available", status=cryptsetup.WRONG_PASSPHRASE)
        self.done.append(f"resize {name} {sectors}")
        self.size = sectors * 512

    def grow(self, kind: str, device: str, mounted: str) -> bool:
        self.done.append(f"grow {kind} {device} {mounted}")
        return bool(mounted) or kind != "xfs"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    held = lock.held
    mapping = mappings.Mapping("data1", "CRYPT-LUKS2-1-data1", tmp_path)
    monkeypatch.setattr(lock, "held", lambda name: held(name, tmp_path / "lock"))
    monkeypatch.setattr(state, "is_open", lambda _: made.open)
    monkeypatch.setattr(block, "look_up", made.look_up)
    monkeypatch.setattr(mappings, "find", lambda _: mapping)
    monkeypatch.setattr(block, "signature", lambda _: made.holds)
    monkeypatch.setattr(growth, "find", lambda *_: made.found)
    monkeypatch.setattr(growfs, "mount_point", lambda _: "/mnt")
    monkeypatch.setattr(growfs, "grow", made.grow)
    monkeypatch.setattr(growfs, "fills", lambda *_: False)
    monkeypatch.setattr(cryptsetup, "resize", made.resize)
    monkeypatch.setattr(luks_data, "volume_key", lambda _: made.key)
    monkeypatch.setattr("cryptpilot_boot.volume.resize.initialized_header", lambda *_: (luks_header.Header(4096), None))
    note, is_by, is_known = opened.note, opened.is_by, opened.is_known
    monkeypatch.setattr(opened, "is_by", lambda name, key: is_by(name, key, tmp_path / "opened"))
    monkeypatch.setattr(opened, "is_known", lambda name: is_known(name, tmp_path / "opened"))
    note("data1", "the key", tmp_path / "opened")
    return made


def asks(value: bytes) -> Callable[[], Passphrase]:
    return lambda: Passphrase(value, strong=True)


def never() -> Passphrase:
    raise AssertionError("no key is needed")


def test_the_volume_grows_and_then_its_file_system(machine: Machine) -> None:
    done = resize.resize(ONE, secret(asks(b"new")))
    assert done == resize.Resized(48 * MIB, 80 * MIB, "its ext4 fills it", 0)
    assert machine.done == [f"resize data1 {80 * MIB // 512}", f"grow ext4 {MAPPER} /mnt"]


def test_the_previous_value_of_a_secret_does_too(machine: Machine) -> None:
    machine.secret = b"old"
    assert resize.resize(ONE, secret(asks(b"new"), asks(b"old"))).after == 80 * MIB
    machine.secret = b"another's"
    machine.found = Growth(MIB, 0, fixed=False)
    with pytest.raises(CryptpilotError, match="the secret does not open /dev/vdb"):
        resize.resize(ONE, secret(asks(b"new"), asks(b"old")))
    assert machine.size == 80 * MIB


def test_no_key_is_asked_for_when_there_is_nothing_to_take(machine: Machine) -> None:
    machine.found = Growth(0, GIB, fixed=False)
    assert resize.resize(ONE, secret(never, never)) == resize.Resized(48 * MIB, 48 * MIB, "its ext4 fills it", GIB)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Growth(GIB, 0, fixed=True), "which has integrity and keeps its size"),
        (Growth(-GIB, 0, fixed=False), "smaller than the volume"),
    ],
)
def test_what_cannot_grow_is_left_alone(machine: Machine, found: Growth, said: str) -> None:
    machine.found = found
    with pytest.raises(DeviceError, match=said) as caught:
        resize.resize(ONE, secret(never, never))
    assert caught.value.hint
    assert machine.done == []


def test_only_what_is_open_and_persistent_is_resized(machine: Machine) -> None:
    machine.open = False
    with pytest.raises(CryptpilotError, match="is not open"):
        resize.resize(ONE, secret(never, never))
    with pytest.raises(CryptpilotError, match="is temporary"):
        resize.resize(Volume("data1", "/dev/vdb", Otp(), ONE.source), secret(never, never))
    assert machine.done == []


def test_no_other_volume_key_gets_to_an_open_volume(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.key = "the key of an older header"
    with pytest.raises(DeviceError, match="is not the one the volume was opened by"):
        resize.resize(ONE, secret(asks(b"new")))
    # another mapping of the same name: cryptsetup opened it by hand
    monkeypatch.setattr(mappings, "identity", lambda _: "254:9 99")
    with pytest.raises(CryptpilotError, match="was opened by another program, or an older version"):
        resize.resize(ONE, secret(asks(b"new")))
    assert machine.done == []


@pytest.mark.parametrize(
    ("kind", "remark"),
    [
        ("swap", f"its swap keeps its size: make it again: swapoff {MAPPER}; mkswap {MAPPER}; swapon {MAPPER}"),
        ("vfat", f"its vfat keeps its size: no program makes it larger; copy what it holds, then mkfs.vfat {MAPPER}"),
        ("zfs_member", "its zfs_member keeps its size: its own tools may make it larger"),
        ("", ""),
    ],
)
def test_what_does_not_grow_by_itself_is_left_to_a_person(machine: Machine, kind: str, remark: str) -> None:
    machine.holds = block.Signature(kind) if kind else None
    assert resize.resize(ONE, secret(asks(b"new"))).remark == remark
    assert machine.size == 80 * MIB


def test_an_xfs_has_to_be_mounted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.holds = block.Signature("xfs")
    monkeypatch.setattr(growfs, "mount_point", lambda _: "")
    with pytest.raises(CryptpilotError, match="its xfs grows only while it is mounted") as caught:
        resize.resize(ONE, secret(asks(b"new")))
    assert "mount /dev/mapper/data1, then again: cryptpilot resize data1" in caught.value.hint
    assert machine.size == 80 * MIB


def test_what_is_noted_of_an_open_volume_is_of_that_mapping_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mappings, "find", lambda name: mappings.Mapping(name, "", tmp_path))
    monkeypatch.setattr(mappings, "identity", lambda _: "254:0 7")
    opened.note("data1", "key", tmp_path)
    assert opened.is_known("data1", tmp_path)
    assert opened.is_by("data1", "key", tmp_path)
    assert not opened.is_by("data1", "another", tmp_path)
    monkeypatch.setattr(mappings, "identity", lambda _: "254:0 71")
    assert not opened.is_known("data1", tmp_path)
    assert not opened.is_by("data1", "key", tmp_path)
    opened.forget("data1", tmp_path)
    opened.forget("data1", tmp_path)
    opened.note("data1", "key", Path("/proc/no/such"))  # the volume is open all the same


def test_a_disk_whose_own_sectors_are_larger_takes_no_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptpilot_boot.volume.sizes import require_makable

    device = block.Device("/dev/vdb", "/dev/vdb", "254:16", "1", GIB, "")
    small = Volume("data1", "/dev/vdb", Exec("cat"), ONE.source, sector_size=512)
    require_makable(small, device)
    monkeypatch.setattr(partition, "sector_size", lambda _: 4096)
    with pytest.raises(DeviceError, match="has sectors of 4096 bytes"):
        require_makable(small, device)

"""A disk that is converted where it is: what is refused, what is gone on with, and in which order it is done."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.cli import arguments
from cryptpilot_boot.commands import check, convert, convert_device
from cryptpilot_boot.config import Boot, Config, Identity
from cryptpilot_boot.convert import build, encrypt, in_place, look, payload, plan, requirements
from cryptpilot_boot.convert.facts import Content, InstalledDisk, InstalledSystem
from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import (
    block,
    clone,
    cryptsetup,
    encryption,
    ext4,
    header_file,
    lock,
    luks_conversion,
    luks_header,
    mapper,
    mappings,
    mkfs,
    mounts,
    partition,
    partition_table,
    process,
)
from cryptpilot_boot.system.luks_conversion import TAKEN
from cryptpilot_boot.volume import Force, State, examine, opening, require_formattable, state
from cryptpilot_boot.volume import adopt as adopting
from cryptpilot_boot.volume import header as headers
from tests.unit.secrets import secret
from tests.unit.test_convert_plan import FOUND, FSTAB, KMS, ROOT_UUID, VOLUME, without_boot

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = FOUND.table.partition(1).size * 512
BLOCKS = ext4.Size(SIZE // 4096, 4096)
CONVERTING = block.Signature("crypto_LUKS", "2", state.CONVERTING)


def device(path: str, size: int = SIZE) -> block.Device:
    return block.Device(path, path, "8:1", "", size, "")


@dataclasses.dataclass
class Bench:
    """A disk with a stock system, without what needs root. found: what is in it; marks: of headers, by partition."""

    found: InstalledDisk = FOUND
    marks: dict[str, str] = dataclasses.field(default_factory=dict)
    size: int = SIZE
    now: ext4.Size = BLOCKS
    least: int = 100_000
    damage: str = ""
    half_written: bool = False
    foreign: bool = False
    events: list[str] = dataclasses.field(default_factory=list)

    def disk(self) -> in_place.Disk:
        return in_place.Disk(device("/dev/sdb", FOUND.image.size), self.found.table, self.found.contents)

    def look_over(self, *, mend: bool = True) -> in_place.RootToEncrypt:
        return in_place.look_over(self.disk(), KMS, Path("/work"), {}, mend=mend)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()

    def mended(_: str, path: str) -> str:
        made.events.append(f"in order {path}")
        return made.damage

    for module, name, replacement in (
        (look, "found", lambda *_: made.found),
        (look, "content", lambda path: made.found.contents[int(path.removeprefix("/dev/sdb"))]),
        (block, "look_up", lambda path: device(path, made.size)),
        (block, "require_unused", lambda _: None),
        (mappings, "find", lambda _: None),
        (partition, "is_partition", lambda one: one.path != "/dev/sdb"),
        (partition_table, "read", lambda _: made.found.table),
        (luks_header, "mark", lambda path: made.marks.get(path, "")),
        (luks_header, "is_foreign", lambda *_: made.foreign),
        (in_place, "saved", lambda _: luks_header.Header(1 << 20) if made.half_written else None),
        (ext4, "size", lambda _: made.now),
        (ext4, "least", lambda _: made.least),
        (mkfs, "check", mended),
        (mapper, "require", lambda: None),
    ):
        monkeypatch.setattr(module, name, replacement)
    return made


def table_with(found: InstalledDisk, number: int, **changes: object) -> InstalledDisk:
    """Return what was found with something else said of a partition."""
    partitions = tuple(
        dataclasses.replace(one, **changes) if one.number == number else one  # type: ignore[arg-type]
        for one in found.table.partitions
    )
    return dataclasses.replace(found, table=dataclasses.replace(found.table, partitions=partitions))


def test_a_root_that_fills_its_partition_gives_up_room_for_the_header(bench: Bench) -> None:
    target = bench.look_over()
    assert target.blocks == (SIZE - TAKEN) // 4096
    assert (target.plan.root, target.plan.boot, target.plan.sector_size) == (1, 2, 4096)
    assert target.plan.table.partition(1).name == "root"
    assert target.volume.dev == "/dev/sdb1"
    assert "it gives up 32 MiB for that" in target.lines[0]
    assert "does not boot" in target.lines[-1]


def test_what_the_kernel_would_resume_from_is_gone_there_too_and_swap_space_is_refused(bench: Bench) -> None:
    loader = FOUND.system.loader
    text = {path: one.replace(" ro", " ro resume=/dev/sdb3") for path, one in loader.configurations.items()}
    system = dataclasses.replace(FOUND.system, loader=dataclasses.replace(loader, configurations=text))
    assert plan.NO_RESUMING not in bench.look_over().lines
    bench.found = dataclasses.replace(FOUND, system=system)
    assert plan.NO_RESUMING in bench.look_over().lines
    bench.found = dataclasses.replace(FOUND, contents={**FOUND.contents, 2: Content("swap")})
    with pytest.raises(CryptpilotError, match="partition 2 is swap space, which a disk that is converted in place"):
        bench.look_over()


def test_a_root_that_leaves_room_stays_as_large_as_it_is(bench: Bench) -> None:
    bench.now = ext4.Size((SIZE - TAKEN) // 4096, 4096)
    assert bench.look_over().blocks is None


def test_what_was_not_unmounted_is_brought_in_order_but_not_by_a_dry_run(bench: Bench) -> None:
    bench.look_over(mend=False)
    assert bench.events == []
    bench.look_over()
    assert bench.events == ["in order /dev/sdb1", "in order /dev/sdb2"]


def test_a_partition_that_is_no_whole_number_of_large_sectors_gets_small_ones(bench: Bench) -> None:
    bench.size = SIZE + 512
    assert bench.look_over().plan.sector_size == 512


def test_a_system_that_was_mended_when_the_power_failed_is_planned_as_it_was(bench: Bench) -> None:
    mended = FSTAB.replace(f"UUID={ROOT_UUID}", "/dev/mapper/root")
    assert mended != FSTAB
    bench.found = dataclasses.replace(FOUND, system=dataclasses.replace(FOUND.system, fstab=mended))
    assert bench.look_over().plan == Bench.look_over(dataclasses.replace(bench, found=FOUND)).plan


def test_a_damaged_file_system_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.damage = "e2fsck: unexpected inconsistency"
    monkeypatch.setattr(ext4, "is_of_a_power_cut", lambda _: False)
    with pytest.raises(CryptpilotError, match="partition 1 is damaged: e2fsck: unexpected") as caught:
        bench.look_over()
    assert caught.value.hint == "repair it: e2fsck -f /dev/sdb1"


def test_one_that_was_being_made_smaller_is_mended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.damage = "e2fsck: unexpected inconsistency"
    monkeypatch.setattr(ext4, "is_of_a_power_cut", lambda _: True)
    monkeypatch.setattr(ext4, "mend", lambda path: bench.events.append(f"mend {path}"))
    bench.look_over()
    assert bench.events == [f"{what} /dev/sdb{number}" for number in (1, 2) for what in ("in order", "mend")]


def test_a_full_file_system_is_refused(bench: Bench) -> None:
    bench.least = (SIZE - TAKEN) // 4096 + 1
    with pytest.raises(CryptpilotError, match="and 32 MiB have to be free"):
        bench.look_over()


def test_the_room_that_is_given_up_is_not_there_for_cryptpilot(bench: Bench) -> None:
    system = dataclasses.replace(FOUND.system, free=100 << 20)
    bench.found = dataclasses.replace(FOUND, system=without_cryptpilot(system))
    with pytest.raises(CryptpilotError, match="has 68 MiB left, and cryptpilot and dracut need 96 MiB"):
        bench.look_over()


def test_what_a_run_that_was_cut_short_took_is_no_lack_of_room(bench: Bench) -> None:
    system = dataclasses.replace(FOUND.system, free=40 << 20, boot_free=60 << 20)
    bench.found = dataclasses.replace(FOUND, system=system)
    assert requirements.CRYPTPILOT in system.present
    assert bench.look_over().blocks
    bench.found = dataclasses.replace(FOUND, system=without_cryptpilot(system))
    with pytest.raises(CryptpilotError, match="need 96 MiB"):
        bench.look_over()


def without_cryptpilot(system: InstalledSystem) -> InstalledSystem:
    return dataclasses.replace(system, present=system.present - {requirements.CRYPTPILOT})


def test_a_boot_inside_the_root_is_refused(bench: Bench) -> None:
    bench.found = without_boot()
    with pytest.raises(CryptpilotError, match="/boot is inside the root") as caught:
        bench.look_over()
    assert caught.value.hint == "convert an image of the disk instead"


def test_xfs_is_refused(bench: Bench) -> None:
    contents = {**FOUND.contents, 1: Content("xfs", ROOT_UUID, "", 4096)}
    bench.found = dataclasses.replace(FOUND, contents=contents)
    with pytest.raises(CryptpilotError, match="the root is xfs, which cannot be made smaller"):
        bench.look_over()


def test_integrity_is_refused() -> None:
    with pytest.raises(CryptpilotError, match="integrity = true, which a conversion in place cannot add"):
        in_place.require_convertible(dataclasses.replace(VOLUME, integrity=True))


def test_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "is_there", lambda name: name != "resize2fs")
    with pytest.raises(CryptpilotError, match="programs are missing: resize2fs"):
        in_place.require_convertible(VOLUME)


def test_only_a_whole_disk_with_a_gpt_is_taken(bench: Bench) -> None:
    assert in_place.opened(Path("/dev/sdb"), KMS).contents == FOUND.contents
    with pytest.raises(CryptpilotError, match="/dev/sdb1 is a partition"):
        in_place.opened(Path("/dev/sdb1"), KMS)
    bench.found = dataclasses.replace(FOUND, table=dataclasses.replace(FOUND.table, label="dos"))
    with pytest.raises(CryptpilotError, match="kind dos"):
        in_place.opened(Path("/dev/sdb"), KMS)


def test_a_disk_in_use_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def refuse(path: str) -> None:
        raise DeviceError(f"{path}: is in use (mounted, swap, or part of another device)")

    monkeypatch.setattr(block, "require_unused", refuse)
    with pytest.raises(CryptpilotError, match="is in use"):
        in_place.opened(Path("/dev/sdb"), KMS)


def test_what_has_begun_is_found_by_its_mark(bench: Bench) -> None:
    assert in_place.begun(bench.disk(), KMS) is None
    bench.marks["/dev/sdb1"] = state.CONVERTING
    with pytest.raises(CryptpilotError, match="partition 1 is half converted, and is not /dev/disk/by-partlabel/root"):
        in_place.begun(bench.disk(), KMS)
    bench.found = table_with(FOUND, 1, name="root")
    assert in_place.begun(bench.disk(), KMS) == 1
    by_uuid = dataclasses.replace(KMS, dev=f"/dev/disk/by-partuuid/{FOUND.table.partition(1).uuid.lower()}")
    assert in_place.begun(bench.disk(), by_uuid) == 1


def test_a_volume_that_is_complete_is_refused(bench: Bench) -> None:
    bench.marks["/dev/sdb1"] = state.COMPLETE
    with pytest.raises(CryptpilotError, match="partition 1 is a cryptpilot volume already"):
        in_place.begun(bench.disk(), KMS)


def test_a_header_in_the_free_room_counts_only_where_nothing_else_is(bench: Bench) -> None:
    """A file system that is there is the old system: what is behind it was left by a run before it began."""
    bench.half_written = True
    bench.found = table_with(FOUND, 1, name="root")
    assert in_place.begun(bench.disk(), KMS) is None
    # libblkid may have found the second copy of the header
    for kind in ("", "crypto_LUKS"):
        bench.found = dataclasses.replace(bench.found, contents={**FOUND.contents, 1: Content(kind)})
        assert in_place.begun(bench.disk(), KMS) == 1
    bench.foreign = True
    assert in_place.begun(bench.disk(), KMS) is None


UUID = "0C7DB2F6-95A6-4C0D-8F2D-8B8A5C3E7DFF"


@pytest.mark.needs("sfdisk")
@pytest.mark.parametrize("name", ["disk", "disk1"])
def test_a_partition_gets_its_name_and_the_others_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(FOUND.image.size)
    subprocess.run(["sfdisk", "--quiet", path], input="label: gpt\n", text=True, check=True)
    partition_table.write(path, FOUND.table)
    for changes in ({"name": "root"}, {"uuid": UUID}):
        renamed = table_with(FOUND, 1, **changes).table
        partition_table.rename(str(path), renamed.partition(1))
    there = partition_table.read(path)
    assert there
    assert there.partition(1) == dataclasses.replace(FOUND.table.partition(1), name="root", uuid=UUID)
    assert [one for one in there.partitions if one.number != 1] == [
        one for one in FOUND.table.partitions if one.number != 1
    ]


# The order.

SECRET = os.urandom(64)


@pytest.fixture
def order(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """Have each step say that it was done."""
    (tmp_path / "secret").write_bytes(base64.b64encode(SECRET))
    told = bench.events.append

    @contextlib.contextmanager
    def within(name: str, value: object = None) -> Iterator[object]:
        told(f"begin {name}")
        yield value
        told(f"end {name}")

    def step(name: str) -> object:
        return lambda *_, **__: told(name)

    def shrink(_: str, blocks: int) -> None:
        told("shrink")
        bench.now = ext4.Size(blocks, 4096)

    def prepared(*_: object, **__: object) -> luks_header.Header:
        told("prepare")
        return luks_header.Header(1 << 20)

    for module, name, replacement in (
        (payload, "require_installed", lambda: None),
        (in_place, "require_convertible", lambda _: None),
        (process, "lock_memory", lambda: None),
        (mounts, "keep_private", lambda: None),
        (lock, "held", lambda _: contextlib.nullcontext()),
        (convert_device, "directory_to_mount_in", lambda _: contextlib.nullcontext(tmp_path)),
        (encryption, "prepare", prepared),
        (encrypt, "_require_prepared", step("prepared")),
        (encrypt, "_require_sound", lambda *_: luks_header.Header(1 << 20)),
        (encrypt, "_enroll", lambda *_: told("enroll") or [Passphrase(b"key", strong=True)]),
        (ext4, "shrink", shrink),
        (clone, "fault", lambda _, path: told(f"whole {path}") or ""),
        (build, "system_mounted", lambda *_: within("mounted")),
        (build, "mend", step("mend")),
        (partition_table, "rename", step("rename")),
        (encryption, "write", step("write")),
        (encrypt, "finish", step("finish")),
    ):
        monkeypatch.setattr(module, name, replacement)
    return bench


def run(bench: Bench, tmp_path: Path, *, dry_run: bool = False, recovery_key: bool = False) -> list[str]:
    options = convert.Options("root", tmp_path / "secret", recovery_key=recovery_key, dry_run=dry_run)
    config = Config(tmp_path, Boot(), (KMS,))
    said: list[str] = []
    bench.events.clear()
    shown = bench.events.append
    assert convert_device.convert(config, Path("/dev/sdb"), options, said.append, lambda _: shown("shown"))
    return said


def test_the_old_system_boots_until_all_has_been_tried_that_can_fail(order: Bench, tmp_path: Path) -> None:
    """The header, and with it the only way in, is made and proven before the disk is changed, and written last."""
    said = run(order, tmp_path, recovery_key=True)
    assert order.events[2:] == [
        "prepare",
        "prepared",
        "enroll",
        "shrink",
        "whole /dev/sdb1",
        "begin mounted",
        "mend",
        "end mounted",
        "rename",
        "whole /dev/sdb1",
        "write",
        "shown",
        "finish",
    ]
    assert said[-1] == "root: /dev/sdb is converted"


def test_data_that_are_where_others_are_to_go_are_not_written_over(
    order: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ext4, "shrink", lambda *_: None)
    with pytest.raises(CryptpilotError, match="uses space of"):
        run(order, tmp_path)
    assert "write" not in order.events


def test_a_dry_run_does_none_of_it(order: Bench, tmp_path: Path) -> None:
    run(order, tmp_path, dry_run=True)
    assert order.events == []


def test_what_has_begun_is_only_finished(order: Bench, tmp_path: Path) -> None:
    order.found = table_with(FOUND, 1, name="root")
    order.marks["/dev/sdb1"] = state.CONVERTING
    said = run(order, tmp_path)
    assert order.events == ["finish"]
    assert said[0] == "root: the conversion of partition 1 was interrupted, and goes on"
    assert run(order, tmp_path, dry_run=True) == said[:1]
    assert order.events == []


def test_a_cryptsetup_that_is_too_old_is_refused_before_the_disk_is_changed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header proves nothing; here there is none at all."""
    monkeypatch.setattr(encryption, "prepare", lambda *_, **__: luks_header.Header(1 << 20))
    target, disk, config = bench.look_over(), bench.disk(), Config(tmp_path, Boot(), ())
    with (
        Passphrase(b"x", strong=True) as passphrase,
        pytest.raises(CryptpilotError, match="prepares an encryption that the volume key does not prove") as caught,
    ):
        encrypt.begin(target, disk, config, passphrase.copy, None, tmp_path)
    assert "install 2.3.7" in caught.value.hint


def test_nothing_goes_on_where_the_step_that_was_cut_short_was_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """cryptsetup says that there is no reencryption then, and fails; so too where only its end is not noted."""
    left: list[bool] = []
    done: list[str] = []
    monkeypatch.setattr(encryption, "mend", lambda *_: done.append("mend"))
    monkeypatch.setattr(encryption, "go_on", lambda *_: done.append("go on"))
    monkeypatch.setattr(
        luks_header,
        "copy_from",
        lambda *_, **__: (luks_header.Header(1), dataclasses.replace(luks_facts(), reencrypting=left.pop(0))),
    )
    all_encrypted = [False]
    monkeypatch.setattr(encryption, "end", lambda *_: done.append("end"))
    monkeypatch.setattr(luks_conversion, "is_all_encrypted", lambda _: all_encrypted[0])
    for module, name, replacement in (
        (block, "look_up", device),
        (luks_header, "mark", lambda _: state.CONVERTING),
        (opening, "slot_in", lambda *_: 0),
        (opening, "checked_header", lambda *_: (luks_header.Header(1), luks_facts())),
        (cryptsetup, "luks_open", lambda *_, **__: None),
        (cryptsetup, "close", lambda _: None),
        (cryptsetup, "set_subsystem", lambda *_: None),
        (clone, "fault", lambda *_: ""),
        (ext4, "size", lambda _: BLOCKS),
        (block, "clear", lambda *_: None),
    ):
        monkeypatch.setattr(module, name, replacement)

    def finish(*reencrypting: bool) -> None:
        left[:] = reencrypting
        encrypt.finish(dataclasses.replace(VOLUME, dev="/dev/sdb1"), lambda: Passphrase(b"x", strong=True))
        assert left == []

    finish(True, False)
    assert done == ["mend"]
    finish(True, True)
    assert done == ["mend", "mend", "go on"]
    all_encrypted[0] = True
    finish(True, True)
    assert done == ["mend", "mend", "go on", "mend", "end"]


def test_a_failure_says_that_nothing_is_lost_and_how_it_goes_on() -> None:
    with pytest.raises(CryptpilotError) as caught, encrypt.going_on():
        raise CryptpilotError("no", "do that")
    assert caught.value.what == "no"
    assert caught.value.hint == "do that; no data is lost: run the same command again to continue"


# What is said of a disk that is half converted.


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A disk that is half converted."""
    path = tmp_path / "disk"
    path.touch()
    monkeypatch.setattr(state, "look", lambda _: CONVERTING)
    monkeypatch.setattr(block, "is_block_device", lambda _: True)
    monkeypatch.setattr(block, "look_up", device)
    monkeypatch.setattr(block, "require_unused", lambda _: None)
    monkeypatch.setattr(mappings, "find", lambda _: None)
    return path


SAID = "is not completely converted: the conversion was interrupted, and no data is lost"
TODO = "cryptpilot convert --device DISK --volume root"


def test_show_says_how_it_goes_on(half: Path) -> None:
    status = examine(dataclasses.replace(VOLUME, dev=str(half)))
    assert (status.state, status.initialized) == (State.CONVERTING, False)
    assert SAID in status.detail
    assert TODO in status.detail


def test_a_check_finds_it(half: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = Config(tmp_path, Boot(), (dataclasses.replace(VOLUME, dev=str(half)),))
    assert not check.check(config, keep_checking=False, skip_passphrase=True, say=said.append)
    (line,) = (line for line in said if "root: error:" in line)
    assert SAID in line
    assert TODO in line


def test_neither_open_nor_init_nor_adopt_nor_a_backup_touches_it(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the key provider is not asked, as all of them look at the header first."""
    one = dataclasses.replace(VOLUME, dev=str(half))
    initializing = sys.modules[require_formattable.__module__]  # whose name in the package is that of a function
    monkeypatch.setattr(initializing, "close_leftover", lambda _: None)
    monkeypatch.setattr(headers, "close_leftover", lambda _: None)
    monkeypatch.setattr(initializing, "require_makable", lambda *_: None)
    monkeypatch.setattr(lock, "held", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(luks_header, "mark", lambda _: state.COMPLETE)
    monkeypatch.setattr(luks_header, "copy_from", lambda *_: (luks_header.Header(1), luks_facts()))
    monkeypatch.setattr(state, "distrust", lambda *_: "")
    monkeypatch.setattr(header_file, "load", lambda _: luks_header.Header(1))
    for attempt in (
        lambda: opening.require_openable(one),
        lambda: require_formattable(one, Force(reinit=True, overwrite=frozenset({"crypto_LUKS"}))),
        lambda: adopting.adopt(one, Path("identity"), secret(lambda: pytest.fail("it is asked"))),
        lambda: headers.require_restorable(one, Path("file"), frozenset({"crypto_LUKS"})),
    ):
        with pytest.raises(DeviceError) as caught:
            attempt()
        assert SAID in caught.value.what
        assert TODO in caught.value.hint


def luks_facts() -> luks_header.Facts:
    return luks_header.Facts("", {}, {}, (), 0, 0, False, frozenset(), "", False, (), (), (), (), ())


def test_a_temporary_volume_does_not_take_it() -> None:
    refused = state.not_ours_to_overwrite(dataclasses.replace(VOLUME, dev="/dev/x"), CONVERTING)
    assert refused
    assert "a cryptpilot volume whose conversion was interrupted" in refused.what
    assert "--overwrite crypto_LUKS" not in refused.hint


def test_a_machine_whose_disk_is_not_encrypted_yet_is_not_sent_to_init() -> None:
    """Its initrd knows what it is bound to: init would destroy the old system."""
    bound = dataclasses.replace(VOLUME, identity=Identity("", frozenset({"0" * 64}), Path("/i")))
    with pytest.raises(DeviceError) as caught:
        opening.require_initialized(bound, block.Signature("ext4"))
    assert TODO in caught.value.hint
    assert "cryptpilot init" not in caught.value.hint


# The command line.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in", "out", "--device", "/dev/sdb"], "--device takes no IN and OUT"),
        (["--device", "/dev/sdb", "--uki"], "--device takes no --uki"),
        (["in"], "IN and OUT are missing, or --device DISK"),
        ([], "IN and OUT are missing, or --device DISK"),
    ],
)
def test_what_makes_no_sense_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    parsed = arguments.parse(["convert", *words, "--volume", "root"])
    with pytest.raises(SystemExit):
        parsed.run(Config(Path("/"), Boot(), ()), parsed)
    assert said in capsys.readouterr().err

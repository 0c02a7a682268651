"""Power cuts: first on logs made up here, then on what a real machine wrote."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab import powercut
from tests.lab.disk import Disk, blank_disk
from tests.lab.powercut import SECTOR, Flag
from tests.lab.run import LabError
from tests.lab.tree import SHARE
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SIZE = 1 << 20
SEEDS = range(200)
PLAIN = Flag(0)


@dataclass(frozen=True)
class Made:
    """An entry to be: sectors full of one letter each from sector `at` on, or a mark, or a discard."""

    flags: Flag = PLAIN
    at: int = 0
    letters: str = ""
    mark: str = ""
    discarded: int = 0


FLUSH = Made(Flag.FLUSH)


def write(at: int, letters: str, flags: Flag = PLAIN) -> Made:
    return Made(flags, at, letters)


def mark(text: str) -> Made:
    return Made(Flag.MARK, mark=text)


def make_log(path: Path, entries: Iterable[Made]) -> powercut.Log:
    made = list(entries)
    blocks = [struct.pack("<QQQI", 0x6A736677736872, 1, len(made), SECTOR)]
    for entry in made:
        sectors = entry.discarded or len(entry.letters)
        blocks.append(struct.pack("<QQQQ", entry.at, sectors, entry.flags, len(entry.mark)) + entry.mark.encode())
        blocks.extend(letter.encode() * SECTOR for letter in entry.letters)
    path.write_bytes(b"".join(block.ljust(SECTOR, b"\0") for block in blocks))
    return powercut.read_log(path)


def letters(image: Path, count: int = 8) -> str:
    """Return the first letter of each of a disk's first sectors; a dot for one with nothing in it."""
    data = image.read_bytes()
    sectors = [data[n * SECTOR : (n + 1) * SECTOR] for n in range(count)]
    assert all(sector == sector[:1] * SECTOR for sector in sectors), "torn within a sector"
    return "".join(chr(sector[0] or ord(".")) for sector in sectors)


def outcomes(log: powercut.Log, moment: int, tmp_path: Path) -> set[str]:
    """Return what the disk's first sectors can be after a cut at a moment."""
    image = tmp_path / "cut.img"
    return {letters(powercut.cut(log, moment, image, size=SIZE, seed=seed)) for seed in SEEDS}


def test_log_is_read(tmp_path: Path) -> None:
    log = make_log(
        tmp_path / "log",
        [write(2, "ab"), FLUSH, mark("one=1"), Made(Flag.DISCARD, 4, discarded=100), write(5, "c", Flag.FUA)],
    )
    assert [(entry.start, entry.length, entry.flags, entry.mark) for entry in log.entries] == [
        (2 * SECTOR, 2 * SECTOR, PLAIN, ""),
        (0, 0, Flag.FLUSH, ""),
        (0, 0, Flag.MARK, "one=1"),
        (4 * SECTOR, 100 * SECTOR, Flag.DISCARD, ""),
        (5 * SECTOR, SECTOR, Flag.FUA, ""),
    ]
    data = log.path.read_bytes()
    first, last = log.entries[0], log.entries[-1]
    assert data[first.payload :][: first.length] == b"a" * SECTOR + b"b" * SECTOR
    assert data[last.payload :] == b"c" * SECTOR


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    with pytest.raises(LabError, match="breaks off"):
        powercut.read_log(path)
    path.write_bytes(bytes(SIZE))
    with pytest.raises(LabError, match=r"no log of dm-log-writes"):
        powercut.read_log(path)
    whole = make_log(path, [write(0, "a"), write(1, "bc")]).path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(LabError, match="longer than its disk"):
        powercut.read_log(path)
    path.write_bytes(whole[: 3 * SECTOR])
    with pytest.raises(LabError, match="breaks off"):
        powercut.read_log(path)


def test_what_was_flushed_or_written_through_is_there(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(0, "a"), write(1, "b"), FLUSH, write(2, "c", Flag.FUA), FLUSH])
    assert outcomes(log, 3, tmp_path) == {"ab......", "abc....."}
    assert outcomes(log, 4, tmp_path) == {"abc....."}
    assert outcomes(log, 5, tmp_path) == {"abc....."}


def test_what_no_flush_came_for_is_there_or_not_each_for_itself(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(0, "a"), FLUSH, write(1, "b"), write(2, "c"), mark("now"), FLUSH])
    assert outcomes(log, 4, tmp_path) == {"a.......", "ab......", "a.c.....", "abc....."}
    assert outcomes(log, 5, tmp_path) == outcomes(log, 4, tmp_path)
    assert outcomes(log, 6, tmp_path) == {"abc....."}


def test_what_was_under_way_may_be_torn_and_nothing_later_is_there(tmp_path: Path) -> None:
    for flags in (PLAIN, Flag.FUA, Flag.FUA | Flag.FLUSH | Flag.METADATA):
        log = make_log(tmp_path / "log", [write(0, "a"), FLUSH, write(1, "bc", flags), write(3, "d"), FLUSH])
        assert outcomes(log, 2, tmp_path) == {"a.......", "ab......", "a.c.....", "abc....."}


def test_a_flush_does_not_vouch_for_its_own_data(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(0, "a"), write(1, "b", Flag.FLUSH)])
    assert outcomes(log, 2, tmp_path) == {"a.......", "ab......"}
    log = make_log(tmp_path / "log", [write(0, "a"), write(1, "b", Flag.FLUSH | Flag.FUA)])
    assert outcomes(log, 2, tmp_path) == {"ab......"}


def test_an_overwritten_block_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(0, "aa"), FLUSH, write(0, "bb"), write(0, "c")])
    assert outcomes(log, 4, tmp_path) == {"aa......", "ba......", "ab......", "bb......", "ca......", "cb......"}


def test_a_discard_is_one_more_write(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(0, "abcd"), FLUSH, Made(Flag.DISCARD, 1, discarded=2), FLUSH])
    assert outcomes(log, 3, tmp_path) == {"abcd....", "a.cd....", "ab.d....", "a..d...."}
    assert outcomes(log, 4, tmp_path) == {"a..d...."}


def test_the_same_seed_makes_the_same_image_over_the_base(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(n, "abcdefgh"[n]) for n in range(8)])
    base = tmp_path / "base.img"
    base.write_bytes(b"-" * SIZE)
    images = [powercut.cut(log, 8, tmp_path / f"{n}.img", base=base, seed=n // 2) for n in range(10)]
    found = [letters(image) for image in images]
    assert found[::2] == found[1::2]
    assert len(set(found)) == 5
    assert base.read_bytes() == b"-" * SIZE
    assert {image.stat().st_size for image in images} == {SIZE}
    assert all(image.read_bytes().endswith(b"-" * (SIZE - 8 * SECTOR)) for image in images)


def test_a_blank_disk_takes_no_more_room_than_was_written(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(1000, "ab"), FLUSH])
    image = powercut.cut(log, 2, tmp_path / "cut.img", size=1 << 30, seed=0)
    assert image.stat().st_size == 1 << 30
    assert image.stat().st_blocks * 512 < 1 << 20


def test_moments_are_spread_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [write(0, "a") for _ in range(1000)])
    chosen = powercut.moments(log, 50, seed=1)
    assert (len(set(chosen)), chosen[0], chosen[-1]) == (50, 0, 1000)
    assert chosen == sorted(chosen)
    assert max(after - before for before, after in zip(chosen, chosen[1:])) < 45
    assert chosen == powercut.moments(log, 50, seed=1)
    assert chosen != powercut.moments(log, 50, seed=2)
    assert powercut.moments(log, 2, seed=1) == [0, 1000]
    assert powercut.moments(log, 1001, seed=1) == list(range(1001))
    for count in (1, 1002):
        with pytest.raises(LabError, match=f"{count} moments cannot be chosen from 0 to 1000"):
            powercut.moments(log, count, seed=1)


def test_moments_of_change_are_as_many_of_a_short_stretch_as_of_a_long_one(tmp_path: Path) -> None:
    made = [*(write(0, "a") for _ in range(1000)), FLUSH, FLUSH, write(1, "b"), FLUSH, write(2, "c"), FLUSH]
    log = make_log(tmp_path / "log", made)
    chosen = powercut.moments_of_change(log, 12, seed=1)
    # 1001 and 1002 lead up to the second write, and after the last flush there is nothing but the end
    assert chosen[-6:] == [1001, 1002, 1003, 1004, 1005, 1006]
    assert (len(set(chosen)), chosen[0]) == (12, 0)
    assert chosen == sorted(chosen)
    assert powercut.moments_of_change(log, 1007, seed=1) == list(range(1007))
    for count in (1, 1008):
        with pytest.raises(LabError, match=f"{count} moments cannot be chosen from 0 to 1006"):
            powercut.moments_of_change(log, count, seed=1)
    log = make_log(tmp_path / "log", [write(0, "a"), mark("begin"), write(1, "b"), FLUSH, mark("end"), FLUSH])
    assert powercut.moments_of_change(log, 3, seed=1, after="begin", before="end") == [2, 3, 4]


def test_moments_can_be_kept_between_two_marks(tmp_path: Path) -> None:
    made = [write(0, "a"), mark("begin"), write(1, "b"), write(2, "c"), mark("end"), write(3, "d")]
    log = make_log(tmp_path / "log", made)
    assert powercut.moments(log, 3, seed=1, after="begin", before="end") == [2, 3, 4]
    assert powercut.marks_before(log, 1) == []
    assert powercut.marks_before(log, 2) == powercut.marks_before(log, 4) == ["begin"]
    assert powercut.marks_before(log, 6) == ["begin", "end"]
    with pytest.raises(LabError, match="no mark middle"):
        powercut.moments(log, 3, seed=1, after="middle")


def test_a_mark_is_one_word() -> None:
    with pytest.raises(ValueError, match="one word"):
        powercut.put_mark("log", "two words")


ROUNDS = 12
BLOCK = 4096


def test_a_real_machine_keeps_what_it_synced_and_can_lose_the_rest(bookworm_tree: Path, tmp_path: Path) -> None:
    """In each round one block is synced and another, further on, only written."""
    share = tmp_path / "share"
    share.mkdir()
    blocks = [bytes([n + 1]) * BLOCK for n in range(ROUNDS)]
    (share / "blocks").write_bytes(b"".join(blocks))
    disk = Disk(blank_disk(tmp_path / "disk.img", SIZE), "disk")
    log_disk = Disk(blank_disk(tmp_path / "log.img", 4 * SIZE), "log")
    device = powercut.logged_device("logged")
    rounds = [
        f"""
{copy} skip={n} seek={n} conv=fsync
{powercut.put_mark("logged", f"synced={n}")}
{copy} skip={n} seek={ROUNDS + n} oflag=direct
"""
        for n in range(ROUNDS)
        for copy in [f"dd if={SHARE}/blocks of={device} bs={BLOCK} count=1 status=none"]
    ]
    script = f"""
{powercut.start_logging("logged", disk.device, log_disk.device)}
{"".join(rounds)}
sync {device}
{powercut.stop_logging("logged")}
"""
    run_uml(bookworm_tree, script, disks=[disk, log_disk], share=share, modules=[powercut.MODULE]).check()
    log = powercut.read_log(log_disk.path)
    every = range(len(log.entries) + 1)
    assert powercut.marks_before(log, every[-1])[-1] == powercut.END
    lost = torn = 0
    for moment in every:
        image = powercut.cut(log, moment, tmp_path / "cut.img", size=SIZE, seed=1).read_bytes()
        found = [image[n * BLOCK : (n + 1) * BLOCK] for n in range(2 * ROUNDS)]
        synced = [int(mark.partition("=")[2]) for mark in powercut.marks_before(log, moment) if mark != powercut.END]
        assert [found[n] for n in synced] == [blocks[n] for n in synced]
        # What had been written when the next round's sync was done had been written before it.
        assert all(found[ROUNDS + n] == blocks[n] for n in synced[:-1])
        assert set(found[len(synced) + 1 : ROUNDS]) <= {bytes(BLOCK)}
        completed = [entry for entry in log.entries[:moment] if entry.length]
        there = [image[entry.start : entry.start + entry.length] for entry in completed]
        lost += sum(not any(data) for data in there)
        torn += sum(any(data) and b"\0" in data for data in there)
    assert lost
    assert torn
    assert powercut.cut(log, every[-1], tmp_path / "end.img", size=SIZE, seed=1).read_bytes() == disk.path.read_bytes()

"""Headers of devices that are encrypted in place: what cryptsetup writes is taken, and anything else is refused.

And how one is put before the data: whenever the power fails, either nothing has changed or it can be gone on with.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import subprocess
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, encryption, loop, luks_conversion, luks_header, luks_objects
from cryptpilot_boot.system.luks_conversion import SHIFT, TAKEN
from cryptpilot_boot.volume import state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = bytes(range(64))
SIZE = 96 << 20
SECTOR = 512
Json = dict[str, Any]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[luks_header.Header]:
    """A header as cryptsetup prepares it: by a file in the place of a loop device, which takes root."""

    @contextlib.contextmanager
    def attached(descriptor: int) -> Iterator[str]:
        yield f"/proc/{os.getpid()}/fd/{descriptor}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "attached", attached)
        patch.setattr(encryption, "MORTAL", ())  # it would end with the thread of a fixture
        made = encryption.prepare(
            SIZE,
            Passphrase(KEY, strong=True),
            subsystem=state.CONVERTING,
            sector_size=4096,
            work=tmp_path_factory.mktemp("work"),
        )
    with made as header:
        yield header


def facts(header: luks_header.Header, size: int = SIZE) -> luks_header.Facts:
    final, said = luks_header.copy_from(header.path, "it", luks_conversion.reader(size))
    final.close()
    return said


def check(metadata: Json, size: int = SIZE) -> luks_header.Facts:
    return luks_conversion.reader(size)(metadata, 16384, "uuid")


@pytest.mark.needs("cryptsetup")
def test_what_cryptsetup_prepares_is_taken_and_opens(prepared: luks_header.Header) -> None:
    """As it is in the end: cryptsetup opens that by the secret, though not by another."""
    said = facts(prepared)
    assert (said.reencrypting, said.data, said.integrity) == (True, SHIFT, False)
    final, _ = luks_header.copy_from(prepared.path, "it", luks_conversion.reader(SIZE))
    with final:
        command = ["cryptsetup", "open", "--test-passphrase", "--key-file=-", final.path]
        for key, status in ((KEY, 0), (b"another", 2)):
            done = subprocess.run(command, input=key, pass_fds=[final.descriptor], check=False, capture_output=True)
            assert done.returncode == status


@pytest.mark.needs("cryptsetup")
def test_no_other_reader_takes_it(prepared: luks_header.Header) -> None:
    """What opens volumes must not open one that is plain in part: the host could write what it likes there."""
    with pytest.raises(luks_header.Distrusted):
        luks_header.copy_from(prepared.path)


def linear(offset: int, size: int) -> Json:
    return {"type": "linear", "offset": str(offset), "size": str(size)}


def crypt(offset: int, size: int, *flags: str) -> Json:
    flagged = {"flags": list(flags)} if flags else {}
    return {
        "type": "crypt",
        "offset": str(offset),
        "size": str(size),
        "iv_tweak": str((offset - SHIFT) // 512),
        "encryption": "aes-xts-plain64",
        "sector_size": 4096,
        **flagged,
    }


def at(prepared: luks_header.Header, *parts: Json) -> Json:
    """Return a header's JSON with other parts of data than in the beginning."""
    found = copy.deepcopy(luks_header.metadata(prepared.descriptor))
    backups = [one for one in found["segments"].values() if "flags" in one]
    found["segments"] = {str(number): one for number, one in enumerate([*parts, *backups])}
    encrypted = [name for name, one in found["segments"].items() if one["type"] == "crypt"]
    for digest in found["digests"].values():
        digest["segments"] = encrypted if digest["segments"] else []
    return found


MOVED = linear(SIZE - SHIFT, SHIFT)
END = SIZE - TAKEN
STEPS = {
    "a step is at work": (MOVED, linear(SHIFT, END - 2 * SHIFT), crypt(END, SHIFT, "in-reencryption")),
    "a step is done": (MOVED, linear(SHIFT, END - 2 * SHIFT), crypt(END, SHIFT)),
    "several are, and one is at work": (
        MOVED,
        crypt(2 * SHIFT, SHIFT, "in-reencryption"),
        crypt(3 * SHIFT, END - 2 * SHIFT),
    ),
    "only what was first is left": (MOVED, crypt(2 * SHIFT, END - SHIFT)),
    "the last step is at work": (crypt(SHIFT, SHIFT, "in-reencryption"), crypt(2 * SHIFT, END - SHIFT)),
}


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_taken(prepared: luks_header.Header, name: str) -> None:
    said = check(at(prepared, *STEPS[name]))
    assert said.reencrypting
    assert [one["type"] for one in said.json["segments"].values()] == ["crypt"]


WRONG: dict[str, Callable[[Json], None]] = {
    "an older requirement": lambda found: found["config"].update(requirements={"mandatory": ["online-reencrypt"]}),
    "one more requirement": lambda found: found["config"]["requirements"]["mandatory"].append("offline-reencrypt"),
    "another direction": lambda found: found["keyslots"]["1"].update(direction="forward"),
    "decryption": lambda found: found["keyslots"]["1"].update(mode="decrypt"),
    "another resilience": lambda found: found["keyslots"]["1"]["area"].update(type="none"),
    "another shift": lambda found: found["keyslots"]["1"]["area"].update(shift_size="4096"),
    "more in the key slot": lambda found: found["keyslots"]["1"].update(more=1),
    "no key slot for it": lambda found: found["keyslots"].pop("1"),
    "no proof": lambda found: found["digests"].pop("1"),
    "a proof of other slots too": lambda found: found["digests"]["1"]["keyslots"].append("0"),
    "no final state": lambda found: found["segments"].pop("4"),
    "a final state in plain": lambda found: found["segments"]["4"].update(encryption="cipher_null-ecb"),
    "a final state elsewhere": lambda found: found["segments"]["4"].update(offset=str(2 * SHIFT)),
    "a final state with an end": lambda found: found["segments"]["4"].update(size=str(SHIFT)),
    "data moved elsewhere": lambda found: found["segments"]["0"].update(offset=str(SIZE - TAKEN)),
    "data twice": lambda found: found["segments"]["1"].update(offset="0"),
    "data left out": lambda found: found["segments"]["1"].update(size=str(END - TAKEN)),
    "no data": lambda found: (found["segments"].pop("0"), found["segments"].pop("1"), None)[-1],
    "another beginning": lambda found: found["segments"]["3"].update(size=str(SHIFT)),
    "a costly key slot": lambda found: found["keyslots"]["0"]["kdf"].update(iterations=2**31),
}


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("name", WRONG)
def test_anything_else_is_refused(prepared: luks_header.Header, name: str) -> None:
    found = copy.deepcopy(luks_header.metadata(prepared.descriptor))
    check(found)
    WRONG[name](found)
    with pytest.raises((luks_objects.Unlisted, ValueError, KeyError)):
        check(found)


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize(
    "parts",
    [
        (MOVED, crypt(2 * SHIFT, SHIFT), linear(2 * SHIFT, END - TAKEN)),
        (MOVED, linear(SHIFT, END - 2 * SHIFT), {**crypt(END, SHIFT), "encryption": "cipher_null-ecb"}),
        (MOVED, linear(SHIFT, END - 2 * SHIFT), {**crypt(END, SHIFT), "iv_tweak": "0"}),
        (MOVED, linear(SHIFT, END - 2 * SHIFT), {**crypt(END, SHIFT), "sector_size": 512}),
        (MOVED, linear(SHIFT, END - 2 * SHIFT), crypt(END, SHIFT, "backup")),
        (linear(0, SHIFT), crypt(2 * SHIFT, END - SHIFT)),
    ],
)
def test_parts_that_cryptsetup_does_not_make_are_refused(prepared: luks_header.Header, parts: tuple[Json, ...]) -> None:
    with pytest.raises(luks_objects.Unlisted):
        check(at(prepared, *parts))


@pytest.mark.needs("cryptsetup")
def test_one_of_another_size_of_disk_is_refused(prepared: luks_header.Header) -> None:
    with pytest.raises(luks_header.Distrusted, match="not started by cryptpilot"):
        facts(prepared, SIZE + SHIFT)


@pytest.mark.needs("cryptsetup")
def test_one_that_was_ended_before_cryptsetup_said_so_is_a_volume(
    prepared: luks_header.Header, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its two copies one is whole at each moment, and the one that cryptsetup goes by says it."""
    found = at(prepared, {**crypt(SHIFT, 0), "size": "dynamic"})
    assert luks_conversion.is_all_encrypted(check(found))
    assert not any(luks_conversion.is_all_encrypted(check(at(prepared, *parts))) for parts in STEPS.values())
    disk = tmp_path / "disk"
    disk.write_bytes(os.pread(prepared.descriptor, SHIFT, 0))
    with disk.open("r+b") as file:
        luks_header.replace_metadata(file.fileno(), found)
    seen: list[bool] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        real(descriptor)
        header, said = luks_header.copy_from(str(disk), "it", luks_conversion.reader(SIZE))
        header.close()
        seen.append(said.reencrypting)

    monkeypatch.setattr(os, "fsync", sync)
    encryption.end(block.Device(str(disk), str(disk), "0:0", "", SIZE, ""))
    assert seen == [False, False, False]
    header, said = luks_header.copy_from(str(disk))
    with header:
        assert said.volume_keys == facts(prepared).volume_keys
    assert luks_header.mark(str(disk)) == state.CONVERTING


# Putting it onto the disk.


class Disk:
    """A file as a disk with a cache: what was written since the last fsync is there, not there, or torn."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        path.write_bytes(content)
        self.written: list[tuple[bytes, int] | None] = []

    @property
    def device(self) -> block.Device:
        return block.Device(str(self.path), str(self.path), "0:0", "", SIZE, "")

    def after_a_cut(self, moment: int, path: Path, content: bytes, seed: int) -> None:
        """Make the disk as it may be when the power fails after so many writes."""
        chance = random.Random(seed * 1000 + moment)  # noqa: S311
        before = self.written[:moment]
        durable = max((place for place, one in enumerate(before) if one is None), default=0)
        path.write_bytes(content)
        with path.open("r+b", buffering=0) as file:
            for place, one in enumerate(before):
                if one is None:
                    continue
                data, offset = one
                fate = "there" if place < durable else chance.choice(("there", "lost", "torn"))
                for start in range(0, len(data), SECTOR) if fate != "lost" else ():
                    if fate == "there" or chance.random() < 0.5:
                        os.pwrite(file.fileno(), data[start : start + SECTOR], offset + start)


def ordinary() -> bytes:
    """Return a disk's content with ext4's magic, and something else everywhere but in its free room."""
    content = bytearray(random.Random(1).randbytes(1 << 20) * (SIZE >> 20))  # noqa: S311
    content[:1024] = bytes(1024)
    content[0x438:0x43A] = b"\x53\xef"
    return bytes(content)


@pytest.mark.needs("cryptsetup")
@pytest.mark.slow
def test_whenever_the_power_fails_while_it_is_written_nothing_is_lost(
    prepared: luks_header.Header, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either all but the free room is as it was, or the header and what it is of can be had."""
    content = ordinary()
    disk = Disk(tmp_path / "disk", content)
    real_write, real_sync = block.write, os.fsync

    def write(target: int, data: bytes | memoryview, offset: int) -> None:
        disk.written.append((bytes(data), offset))
        real_write(target, data, offset)

    def sync(target: int) -> None:
        disk.written.append(None)
        real_sync(target)

    monkeypatch.setattr(block, "write", write)
    monkeypatch.setattr(os, "fsync", sync)
    encryption.write(disk.device, prepared)
    monkeypatch.undo()
    moments = range(len(disk.written) + 1)
    copied = 2 * (SHIFT >> 20)
    seen = []
    for moment in (0, 9, copied - 1, *range(copied, copied + 6), *moments[copied + 6 : -5 : 8], *moments[-5:]):
        cut = tmp_path / "cut"
        disk.after_a_cut(moment, cut, content, moment)
        seen.append(require_all_there(cut, content, prepared))
    assert seen == sorted(seen, key=["as it was", "gone on with", "written"].index)
    assert set(seen) == {"as it was", "gone on with", "written"}


def require_all_there(cut: Path, content: bytes, prepared: luks_header.Header) -> str:
    """Fail unless a disk holds what it held, and say how; it is gone on with where that is needed."""
    device = block.Device(str(cut), str(cut), "0:0", "", SIZE, "")
    found = cut.read_bytes()
    if found[0x438:0x43A] == b"\x53\xef":
        assert found[:-TAKEN] == content[:-TAKEN]
        return "as it was"
    how = "written"
    if luks_header.mark(str(cut)) != state.CONVERTING:
        header = encryption.saved(device)
        assert header
        with header:
            assert facts(header).reencrypting
            header.write_to(device)
        how = "gone on with"
    final, said = luks_header.copy_from(str(cut), "it", luks_conversion.reader(SIZE))
    final.close()
    assert said.volume_keys == facts(prepared).volume_keys
    found = cut.read_bytes()
    assert found[-SHIFT:] == content[:SHIFT]
    assert found[SHIFT:-TAKEN] == content[SHIFT:-TAKEN]
    assert found[32768:SHIFT] == os.pread(prepared.descriptor, SHIFT - 32768, 32768)
    return how


def test_free_room_without_a_header_is_none(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", bytes(SIZE))
    assert encryption.saved(disk.device) is None
    with pytest.raises(DeviceError):
        luks_header.copy_from(str(disk.path))


# A recovery key.


@pytest.mark.needs("cryptsetup")
def test_key_slots_that_came_later_are_taken_over(prepared: luks_header.Header) -> None:
    """Though cryptsetup gave one the number, and the room, that the encryption has."""
    found = luks_header.metadata(prepared.descriptor)
    final = copy.deepcopy(luks_conversion.completed(found))
    new = copy.deepcopy(final["keyslots"]["0"])
    new["area"]["offset"] = "290816"
    final["keyslots"]["1"] = new
    next(iter(final["digests"].values()))["keyslots"].append("1")
    final["tokens"] = {"0": {"type": "systemd-recovery", "keyslots": ["1"]}}
    changed, moved = luks_conversion.with_slots_of(found, final)
    assert moved == {290816: (294912, 258048)}
    said = check(changed)
    assert sorted(said.salts) == [0, 1]
    assert said.recovery_slots == {1}
    assert changed["keyslots"]["2"]["type"] == "reencrypt"
    assert luks_header.metadata(prepared.descriptor) == found

"""Two values of one secret, without devices: which is asked for when, and what is done to the key slots."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest

from cryptpilot_boot import keys, volume
from cryptpilot_boot.config import Exec, Kms, Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError, NoValue, ProgramError
from cryptpilot_boot.keys import Passphrase, ask_until
from cryptpilot_boot.keys.failures import wrong_secret
from cryptpilot_boot.providers.kms import PREVIOUS
from cryptpilot_boot.system import block, cryptsetup, lock
from cryptpilot_boot.system.wait import Deadline
from cryptpilot_boot.volume import Opening, opening, pending, state
from cryptpilot_boot.volume.rotate import rotate
from tests.unit.secrets import secret

KMS = Kms("kst-1", "disk", "{}", "password", "pem")
ONE = Volume("data1", "/dev/vdb", KMS, Path("/etc/cryptpilot/volumes/data1.toml"))
OLD, NEW, OTHER = b"old", b"new", b"somebody else's"


class Header:
    """The key slots of a device, by number; and what was done to them."""

    def __init__(self, *values: bytes) -> None:
        self.slots = dict(enumerate(values))
        self.done: list[str] = []

    def find(self, _: Volume, __: block.Device, passphrase: Passphrase) -> int:
        value = bytes(passphrase.reveal())
        found = next((number for number, other in self.slots.items() if same_key(value, other)), None)
        if found is None:
            raise wrong_secret(ONE, "no key slot takes it")
        return found

    def add(self, _: str, passphrase: Passphrase, new: Passphrase) -> None:
        assert bytes(passphrase.reveal()) in self.slots.values()
        self.slots[max(self.slots) + 1] = bytes(new.reveal())
        self.done.append("add")

    def kill(self, _: str, slot: int, passphrase: Passphrase) -> None:
        assert bytes(passphrase.reveal()) in [value for number, value in self.slots.items() if number != slot]
        del self.slots[slot]
        self.done.append(f"kill {slot}")


def same_key(one: bytes, other: bytes) -> bool:
    """Tell whether two passphrases are one to PBKDF2."""
    return one.rstrip(b"\0") == other.rstrip(b"\0")


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep what is noted below a directory of the test's own, and look at no device."""
    directory = tmp_path / "pending"
    note, held = pending.note, lock.held
    monkeypatch.setattr(pending, "note", lambda name, pending, directory=directory: note(name, pending, directory))
    monkeypatch.setattr(lock, "held", lambda name: held(name, tmp_path / "lock"))
    monkeypatch.setattr(block, "look_up", lambda path: block.Device(path, "/dev/vdb", "254:16", "1", 1 << 30, ""))
    monkeypatch.setattr(state, "look", lambda _: block.Signature("crypto_LUKS", "2", state.COMPLETE))
    return directory


def given(monkeypatch: pytest.MonkeyPatch, *values: bytes) -> Header:
    header = Header(*values)
    monkeypatch.setattr(opening, "find_slot", header.find)
    monkeypatch.setattr("cryptpilot_boot.volume.rotate.renew_proofs", lambda *_: None)
    monkeypatch.setattr("cryptpilot_boot.volume.rotate.follow", lambda *_: None)
    monkeypatch.setattr(cryptsetup, "add_key", header.add)
    monkeypatch.setattr(cryptsetup, "kill_slot", header.kill)
    return header


def asks(value: bytes | KeyFetchError) -> Callable[[], Passphrase]:
    def ask() -> Passphrase:
        if isinstance(value, KeyFetchError):
            raise value
        return Passphrase(value, strong=True)

    return ask


NONE = NoValue('secret "disk" has no previous value')
UNREACHABLE = KeyFetchError("no network", "plug it in")


def test_a_slot_for_the_current_value_is_added_before_the_old_one_goes(
    monkeypatch: pytest.MonkeyPatch, marks: Path
) -> None:
    header = given(monkeypatch, OTHER, OLD)
    pending.note("data1", pending=True)
    assert rotate(ONE, asks(NEW), asks(OLD))
    assert header.done == ["add", "kill 1"]
    assert list(header.slots.values()) == [OTHER, NEW]
    assert not pending.is_pending("data1", marks)


@pytest.mark.parametrize(
    ("slots", "previous", "left"),
    [
        ((OLD, NEW), OLD, [NEW]),
        ((OLD, NEW, OLD), OLD, [NEW]),  # as when somebody added it by hand, too
        ((NEW,), OLD, [NEW]),
        ((NEW, OTHER), OLD, [NEW, OTHER]),
        ((NEW,), NONE, [NEW]),
        ((NEW,), NEW, [NEW]),
        ((NEW, NEW), NEW, [NEW, NEW]),
        ((NEW,), NEW + b"\0", [NEW]),
    ],
)
def test_what_is_left_of_the_previous_value_goes_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, slots: tuple[bytes, ...], previous: bytes | KeyFetchError, left: list[bytes]
) -> None:
    header = given(monkeypatch, *slots)
    assert rotate(ONE, asks(NEW), asks(previous)) is (list(slots) != left)
    assert list(header.slots.values()) == left


@pytest.mark.parametrize(
    ("slots", "previous", "said"),
    [
        ((OTHER,), OLD, "no key slot takes it, nor its previous value"),
        ((OTHER,), NONE, 'no key slot takes it, and secret "disk" has no previous value'),
        ((OLD,), UNREACHABLE, "does not open /dev/vdb, and the previous one cannot be had: no network"),
        ((NEW,), UNREACHABLE, "no network"),
    ],
)
def test_who_cannot_be_rotated_is_left_as_he_is(
    monkeypatch: pytest.MonkeyPatch, slots: tuple[bytes, ...], previous: bytes | KeyFetchError, said: str
) -> None:
    header = given(monkeypatch, *slots)
    with pytest.raises(CryptpilotError, match=said):
        rotate(ONE, asks(NEW), asks(previous))
    assert header.done == []


def test_a_new_slot_that_does_not_open_keeps_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    header = given(monkeypatch, OLD)
    monkeypatch.setattr(cryptsetup, "add_key", lambda *_: None)
    with pytest.raises(CryptpilotError, match="no key slot takes it"):
        rotate(ONE, asks(NEW), asks(OLD))
    assert list(header.slots.values()) == [OLD]


def test_header_work_of_several_volumes_is_done_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take half of the memory; and nobody waits for another's network."""
    asking = threading.Barrier(2, timeout=20)
    alone = threading.Lock()
    crowded = []

    def find_slot(one: Volume, _: block.Device, passphrase: Passphrase) -> int:
        if not alone.acquire(blocking=False):
            crowded.append(one.volume)
            return 0
        time.sleep(0.1)  # long enough for the other
        alone.release()
        return 0 if bytes(passphrase.reveal()) == NEW else 1

    def ask() -> Passphrase:
        asking.wait()
        return Passphrase(NEW, strong=False)

    def ask_previous() -> Passphrase:
        asking.wait()
        raise NoValue("none")

    monkeypatch.setattr(opening, "find_slot", find_slot)
    volumes = [dataclasses.replace(ONE, volume=name) for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda one: rotate(one, ask, ask_previous), volumes))
    assert (done, crowded) == ([False, False], [])


def test_a_program_that_fails_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ProgramError("cryptsetup: All key slots full")

    given(monkeypatch, OLD)
    monkeypatch.setattr(cryptsetup, "add_key", fail)
    with pytest.raises(
        CryptpilotError, match="cannot be given a new key slot: cryptsetup: All key slots full"
    ) as caught:
        rotate(ONE, asks(NEW), asks(OLD))
    assert "cryptpilot rotate data1" in caught.value.hint


@pytest.mark.parametrize(("slots", "opened"), [((NEW,), Opening.CURRENT), ((OLD,), Opening.PREVIOUS)])
def test_the_previous_value_is_asked_for_only_when_the_current_one_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, slots: tuple[bytes, ...], opened: Opening
) -> None:
    asked = []

    def ask_previous() -> Passphrase:
        asked.append(PREVIOUS)
        return Passphrase(OLD, strong=True)

    given(monkeypatch, *slots)
    assert volume.verify(ONE, secret(asks(NEW), ask_previous, ONE)).how is opened
    assert asked == ([PREVIOUS] if opened is Opening.PREVIOUS else [])


def test_why_neither_value_opens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, OTHER)
    for previous, what, hint in (
        (
            OLD,
            "no key slot takes it, nor its previous value",
            'secret "disk" is what the volume was initialized with',
        ),
        (NONE, 'no key slot takes it, and secret "disk" has no previous value', 'secret "disk" is what the volume'),
        (UNREACHABLE, "the previous one cannot be had: no network", "plug it in"),
    ):
        with pytest.raises(CryptpilotError, match=what) as caught:
            volume.verify(ONE, secret(asks(NEW), asks(previous), ONE))
        assert hint in caught.value.hint
    with pytest.raises(CryptpilotError, match=r"no key slot takes it$"):
        volume.verify(ONE, secret(asks(NEW)))


def test_only_kms_keeps_a_previous_value() -> None:
    assert keys.previous(KMS) == dataclasses.replace(KMS, stage="ACSPrevious")
    assert KMS.stage == "ACSCurrent"
    assert keys.previous(Otp()) is None
    assert keys.previous(Exec("cat")) is None


def test_where_a_value_comes_from_says_which_one_it_is() -> None:
    previous = keys.previous(KMS)
    assert previous is not None
    assert keys.describe(previous)["provider"] == f"{keys.describe(KMS)['provider']}, ACSPrevious"


def test_that_there_is_no_value_is_known_after_several_tries_too() -> None:
    errors = [KeyFetchError("busy", retryable=True), NoValue("none")]

    def ask(_: float) -> Passphrase:
        raise errors.pop(0)

    with pytest.raises(NoValue, match=r"none \(2 tries in"):
        ask_until(ask, Deadline(20), "data1")


def test_what_cannot_be_noted_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    pending.note("data1", pending=True, directory=tmp_path / "file" / "below")
    assert not pending.is_pending("data1", tmp_path / "file" / "below")


def test_a_current_value_that_cannot_be_used_does_not_lock_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody put text there that is no base64; the previous value is what it was."""
    unusable = NoValue('the value of secret "disk" is not base64', "store another")
    given(monkeypatch, OLD)
    assert volume.verify(ONE, secret(asks(unusable), asks(OLD), ONE)).how is Opening.PREVIOUS
    for previous in (OTHER, NONE, UNREACHABLE):
        with pytest.raises(NoValue, match="is not base64") as caught:
            volume.verify(ONE, secret(asks(unusable), asks(previous), ONE))
        assert caught.value.hint == "store another"
    with pytest.raises(NoValue, match="is not base64"):
        rotate(ONE, asks(unusable), asks(OLD))

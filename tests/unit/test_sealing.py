"""Sealed keys of a volume that is there: sealing anew, and what is removed; with a TPM in software and real headers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.commands.enroll import enroll
from cryptpilot_boot.commands.key import new_key_of, terms_of
from cryptpilot_boot.config import Boot, Config, Volume
from cryptpilot_boot.config.model import Fallback
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError, NoValue, ProgramError, WrongSecret
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers.execute import Exec
from cryptpilot_boot.providers.together import Together
from cryptpilot_boot.providers.tpm2 import Tpm2
from cryptpilot_boot.system import block, cryptsetup, lock, tpm2
from cryptpilot_boot.volume import opening, pending, sealing, slots, state
from cryptpilot_boot.volume import recovery as recovery_keys
from cryptpilot_boot.volume.initialize import Force, Target, initialize
from cryptpilot_boot.volume.rotate import rotate
from tests.headers import Template
from tests.lab.tpm import HostTpm
from tests.unit.secrets import secret

if TYPE_CHECKING:
    from collections.abc import Iterator

WAY_IN, RECOVERY, OTHER = (bytes([number]) * 40 + b"\xff" for number in range(3))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostTpm]:
    """A TPM; files are taken for devices, and what is noted stays in the test's directory."""
    tpm = HostTpm(tmp_path / "tpm")
    held = lock.held
    monkeypatch.setattr(tpm2, "connected", tpm.connected)
    monkeypatch.setattr(lock, "held", lambda name: held(name, tmp_path / "lock"))
    monkeypatch.setattr(pending, "note", lambda *_, **__: None)
    monkeypatch.setattr(block, "look_up", lambda path: block.Device(path, path, "254:16", "1", 1 << 30, ""))
    yield tpm
    tpm.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A disk that two passphrases open, say that of KMS and the recovery key."""
    made = Template.made(tmp_path_factory.mktemp("header") / "disk", WAY_IN)
    with Passphrase(WAY_IN, strong=True) as way_in, Passphrase(RECOVERY, strong=True) as other:
        cryptsetup.add_key(str(made.image), way_in, other)
    return made


@pytest.fixture
def one(template: Template, tmp_path: Path) -> Volume:
    """A volume on a copy of that disk."""
    disk = template.copied(tmp_path / "disk")
    return Volume("data", str(disk), Tpm2(str(disk)), Path("/etc/cryptpilot/volumes/data.toml"))


def given(value: bytes) -> Callable[[], Passphrase]:
    return lambda: Passphrase(value, strong=True)


def seal(one: Volume, way_in: bytes = WAY_IN, ask: Any = None, *, first: bool = False) -> slots.Older:
    def make() -> Any:
        made = keys.seal(one.encrypt, ask)
        assert made
        return made

    return sealing.seal(one, secret(given(way_in)), make, first=first)


def asked(one: Volume) -> bytes:
    with keys.prepare(one.encrypt)(5) as passphrase:
        return bytes(passphrase.reveal())


def opens(one: Volume, value: bytes) -> bool:
    with Passphrase(value, strong=True) as passphrase:
        try:
            opening.find_slot(one, block.look_up(one.dev), passphrase)
        except WrongSecret:
            return False
    return True


def metadata(one: Volume) -> Any:
    return Template.of(Path(one.dev)).metadata


def test_a_sealed_key_is_added_and_opens(one: Volume) -> None:
    assert seal(one) == slots.Older()
    assert opens(one, asked(one))
    assert opens(one, WAY_IN)
    assert opens(one, RECOVERY)


def test_sealing_anew_by_the_same_way_in_replaces_the_older_key(one: Volume, machine: HostTpm) -> None:
    seal(one)
    first = asked(one)
    machine.extend(9)  # a kernel update
    with pytest.raises(KeyFetchError):
        asked(one)
    assert seal(one) == slots.Older(removed=1)
    assert opens(one, asked(one))
    assert not opens(one, first)
    assert len(metadata(one)["keyslots"]) == 3
    assert len(metadata(one)["tokens"]) == 1


def test_it_is_sealed_anew_by_itself_to_other_registers(one: Volume) -> None:
    seal(one, first=True)
    for _ in range(2):
        before = asked(one)
        assert seal(one, before, first=True) == slots.Older(removed=1)
        assert opens(one, asked(one))
        assert not opens(one, before)
    assert len(metadata(one)["tokens"]) == 1


def test_an_older_key_that_nothing_proves_is_left_and_named(one: Volume) -> None:
    seal(one)
    slot = int(metadata(one)["tokens"]["0"]["keyslots"][0])
    assert seal(one, RECOVERY) == slots.Older(removed=0, unproven=(slot,))
    assert opens(one, asked(one))


def test_a_token_that_the_host_wrote_removes_no_key_slot(one: Volume) -> None:
    """Attack: the host has a token say that the slots of KMS and of the recovery key are the TPM's."""
    seal(one)

    def change(found: Any) -> None:
        found["tokens"]["0"]["keyslots"] = ["0", "1"]

    template = Template.of(Path(one.dev))
    with Path(one.dev).open("r+b") as target:
        for place, piece in template.both(template.changed(change)).items():
            target.seek(place)
            target.write(piece)
    assert seal(one).unproven == (0, 1)
    assert opens(one, WAY_IN)
    assert opens(one, RECOVERY)


def test_nothing_is_made_by_a_wrong_way_in(one: Volume) -> None:
    with pytest.raises(WrongSecret):
        sealing.seal(one, secret(given(OTHER)), lambda: pytest.fail("a key was made"), first=True)


def test_nothing_is_changed_when_the_tpm_refuses(one: Volume, machine: HostTpm) -> None:
    before = metadata(one)
    machine.tool("tpm2_changeauth", "-c", "owner", "secret")
    with pytest.raises(CryptpilotError, match="its owner hierarchy has a password"):
        seal(one)
    assert metadata(one) == before


def test_a_header_without_room_for_the_token_gets_no_key_slot(one: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ProgramError("cryptsetup: No space left on device")

    before = metadata(one)["keyslots"]
    monkeypatch.setattr(cryptsetup, "add_token", fail)
    with pytest.raises(CryptpilotError, match="cannot be given a key that is sealed to the TPM"):
        seal(one)
    assert metadata(one)["keyslots"] == before
    with pytest.raises(CryptpilotError, match="cannot be given a recovery key"):
        recovery_keys.enroll(one, secret(given(WAY_IN)), lambda _: pytest.fail("a key was shown"), replace=True)
    assert metadata(one)["keyslots"] == before


def test_a_temporary_volume_has_no_sealed_key(one: Volume) -> None:
    from cryptpilot_boot.providers.otp import Otp

    temporary = Volume("data", one.dev, Otp(), one.source)
    with pytest.raises(CryptpilotError, match="is temporary"):
        sealing.seal(temporary, secret(given(WAY_IN)), lambda: pytest.fail("a key was made"), first=True)


@pytest.mark.parametrize("from_the_start", [True, False], ids=["made so", "enrolled"])
def test_a_rotation_of_one_value_keeps_the_other(one: Volume, tmp_path: Path, from_the_start: bool) -> None:
    """Together: what KMS rotates changes the passphrase, and the sealed key stays."""
    values = {name: tmp_path / name for name in ("old", "new")}
    for number, path in enumerate(values.values()):
        path.write_bytes(bytes([40 + number]) * 63 + b"\xff")
    sources = {
        name: Together((Exec("cat", (str(path),)), Tpm2(one.dev, together=True))) for name, path in values.items()
    }

    def ask(name: str) -> Callable[[], Passphrase]:
        return lambda: keys.prepare(sources[name])(5)

    volume = Volume("data", one.dev, sources["old"], one.source)
    seal(volume, WAY_IN, lambda source: keys.prepare(source)(5))
    if from_the_start:  # by itself
        with ask("old")() as passphrase:
            seal(volume, bytes(passphrase.reveal()), lambda source: keys.prepare(source)(5), first=True)
    before = asked(volume)
    assert rotate(volume, ask("new"), ask("old"))
    volume = Volume("data", one.dev, sources["new"], one.source)
    after = asked(volume)
    assert before != after
    assert opens(volume, after)
    assert not opens(volume, before)
    assert not rotate(volume, ask("new"), ask("old"))
    # the token is that of the new key slot, so that sealing anew finds it
    if from_the_start:
        names = {name for token in metadata(one)["tokens"].values() for name in token["keyslots"]}
        with Passphrase(after, strong=True) as passphrase:
            assert str(opening.find_slot(volume, block.look_up(one.dev), passphrase)) in names


def test_a_rotation_in_kms_renews_what_proves_a_sealed_key(one: Volume) -> None:
    seal(one)
    new = OTHER[::-1]
    rotate(one, given(new), given(WAY_IN))
    assert seal(one, new) == slots.Older(removed=1)
    assert opens(one, asked(one))
    assert not opens(one, WAY_IN)


def test_a_rotation_without_a_previous_value_changes_nothing(one: Volume) -> None:
    seal(one)

    def none() -> Passphrase:
        raise NoValue("there is none")

    before = metadata(one)
    assert not rotate(one, given(WAY_IN), none)
    assert metadata(one) == before


# The command


def run_enroll(one: Volume, provider: str, key: bytes | None = None) -> tuple[bool, list[object]]:
    config = Config(Path("/etc/cryptpilot"), Boot(), (one,))
    said: list[object] = []
    ask = (lambda _: Passphrase(key, strong=True)) if key else None
    good = enroll(config, "data", provider, lambda _, result: said.append(result), ask)
    return good, said


def test_the_recovery_key_is_the_way_in_after_a_kernel_update(one: Volume, machine: HostTpm) -> None:
    assert run_enroll(one, "tpm2", RECOVERY)[0]
    machine.extend(9)
    good, said = run_enroll(one, "tpm2")
    assert not good
    assert "PCR 9 changed since it was sealed" in str(said)
    good, said = run_enroll(one, "tpm2", RECOVERY)
    assert good
    sentence = str(said[0])
    assert sentence.startswith(
        "a new key of encrypt (this machine's TPM, PCRs 4, 7, 8, 9, 12) opens it; key slot 2 was"
    )
    assert sentence.endswith(
        "key slot 2 was left: the header says that it takes an older sealed key, and nothing proves that;"
        " see which slots your keys take before you remove it: docs/recovery.md, Unknown key slots"
    )
    assert "luksKillSlot" not in sentence  # the host can write a token that names the slot of another key
    assert opens(one, asked(one))


def test_a_recovery_key_that_opens_nothing_is_no_fault_of_the_source(one: Volume) -> None:
    good, (error,) = run_enroll(one, "tpm2", OTHER)
    assert not good
    assert str(error) == f"this recovery key does not open {one.dev}: no key slot takes it"


def test_the_first_source_is_the_way_in_by_itself(one: Volume) -> None:
    run_enroll(one, "tpm2", RECOVERY)
    good, said = run_enroll(one, "tpm2")
    assert good
    assert str(said[0]).endswith("PCRs 4, 7, 8, 9, 12) opens it, and the older one no longer does")


def test_a_source_that_the_volume_has_not_is_named(one: Volume) -> None:
    good, said = run_enroll(one, "kms", RECOVERY)
    assert not good
    assert 'has no source "kms"' in str(said)


def test_a_fallback_is_sealed_by_the_first_source(one: Volume, tmp_path: Path, machine: HostTpm) -> None:
    (tmp_path / "key").write_bytes(WAY_IN)
    first = Exec("cat", (str(tmp_path / "key"),))
    both = Volume("data", one.dev, first, one.source, fallbacks=(Fallback(one.encrypt, 0),))
    good, said = run_enroll(both, "tpm2")
    assert good, said
    machine.extend(9)
    good, said = run_enroll(both, "fallback1")
    assert good
    assert str(said[0]).endswith("PCRs 4, 7, 8, 9, 12) opens it, and the older one no longer does")
    assert opens(one, asked(one))


def test_a_tpm_that_refuses_is_no_failure_of_the_source_that_opens_the_volume(
    one: Volume, tmp_path: Path, machine: HostTpm
) -> None:
    (tmp_path / "key").write_bytes(WAY_IN)
    first, second = (Exec("cat", (*options, str(tmp_path / "key"))) for options in ((), ("-u",)))
    fallbacks = (Fallback(second, 0), Fallback(one.encrypt, 3600))
    machine.tool("tpm2_changeauth", "-c", "owner", "secret")
    good, (error,) = run_enroll(Volume("data", one.dev, first, one.source, fallbacks=fallbacks), "tpm2")
    assert not good
    assert isinstance(error, CryptpilotError)
    assert error.what.startswith("fallback2 (this machine's TPM, ")
    assert error.what.endswith("its owner hierarchy has a password")


def test_init_seals_and_keeps_what_it_sealed(
    one: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: HostTpm
) -> None:
    """Of the first source and of a fallback, before the header says that the volume is complete."""
    (tmp_path / "key").write_bytes(WAY_IN)
    stranger = Exec("cat", (str(tmp_path / "key"),))
    both = Together((stranger, Tpm2(one.dev, together=True)))
    volume = Volume("data", one.dev, one.encrypt, one.source, fallbacks=(Fallback(both, 0), Fallback(stranger, 0)))
    target = Target(block.look_up(one.dev), None)
    monkeypatch.setattr(block, "require_unused", lambda _: None)
    monkeypatch.setattr(lock, "of_device", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(block, "writing", writing)
    monkeypatch.setattr(block, "require_same", lambda *_: None)
    config = Config(Path("/etc/cryptpilot"), Boot(), (volume,))
    with terms_of(config) as terms, monkeypatch.context() as empty:
        empty.setattr(state, "look", lambda _: None)
        first, *others = (new_key_of(volume, number, terms) for number in range(3))
        unbound = initialize(volume, target, Force(), first, tmp_path / "identity.toml", others)
    assert unbound is None
    found = metadata(one)
    assert sorted(token["type"] for token in found["tokens"].values()) == ["cryptpilot-tpm2", "systemd-tpm2"]
    for source in volume.sources:
        assert opens(volume, asked(Volume("data", one.dev, source, one.source)))
    # proven from the start
    assert seal(volume, asked(volume), first=True) == slots.Older(removed=1)
    machine.extend(4)
    assert opens(volume, asked(Volume("data", one.dev, stranger, one.source)))


@contextlib.contextmanager
def writing(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)

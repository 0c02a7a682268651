"""Sealing a key to a TPM, with a TPM in software; and that others' tools make the same of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import tpm2
from cryptpilot_boot.system import tpm2_wire as wire
from tests.lab.tpm import HostTpm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PCRS = (4, 7, 8, 9, 12)
KEY = bytes(range(100, 132))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[HostTpm]:
    tpm = HostTpm(tmp_path / "tpm")
    yield tpm
    tpm.stop()


def sealed_by(machine: HostTpm, pcrs: tuple[int, ...] = PCRS) -> tuple[tpm2.Sealed, tpm2.Registers]:
    with machine.connected() as tpm, Passphrase(KEY, strong=True) as key:
        registers = tpm.registers(pcrs)
        return tpm.seal(key, registers), registers


def unsealed_by(machine: HostTpm, sealed: tpm2.Sealed, registers: tpm2.Registers) -> bytes:
    with machine.connected() as tpm, tpm.unseal(sealed, registers) as key:
        return bytes(key.reveal())


def test_what_a_tpm_seals_it_gives_back(machine: HostTpm) -> None:
    sealed, registers = sealed_by(machine)
    assert KEY not in sealed.private + sealed.public
    for _ in range(5):  # nothing is left in it, of which there is room for three
        assert unsealed_by(machine, sealed, registers) == KEY


def test_it_still_does_after_a_restart(machine: HostTpm, tmp_path: Path) -> None:
    sealed, registers = sealed_by(machine)
    machine.stop()
    again = HostTpm(tmp_path / "tpm")
    try:
        assert unsealed_by(again, sealed, registers) == KEY
    finally:
        again.stop()


def test_registers_are_those_that_others_read(machine: HostTpm, tmp_path: Path) -> None:
    machine.extend(12)
    with machine.connected() as tpm:
        values = tpm.registers(range(17)).values
    assert len(values) == 17
    machine.tool("tpm2_pcrread", "sha256:" + ",".join(map(str, range(8))), "--output", tmp_path / "some")
    assert b"".join(values[pcr] for pcr in range(8)) == (tmp_path / "some").read_bytes()
    assert values[12] == hashlib.sha256(bytes(32) + b"\x5a" * 32).digest()


def test_a_key_is_not_given_once_a_register_holds_something_else(machine: HostTpm) -> None:
    sealed, registers = sealed_by(machine)
    machine.extend(13)  # which it is not sealed to
    assert unsealed_by(machine, sealed, registers) == KEY
    machine.extend(9)
    with pytest.raises(tpm2.WrongState) as refused:
        unsealed_by(machine, sealed, registers)
    assert refused.value.passing
    # nor if the TPM is asked with the values of another state
    with machine.connected() as tpm:
        now = tpm.registers(PCRS)
    assert now != registers
    with pytest.raises(tpm2.WrongState):
        unsealed_by(machine, sealed, now)


def test_tpm2_tools_unseal_what_is_sealed_here(machine: HostTpm, tmp_path: Path) -> None:
    machine.extend(4)
    sealed, _ = sealed_by(machine)
    for name, content in (("private", sealed.private), ("public", sealed.public)):
        (tmp_path / name).write_bytes(len(content).to_bytes(2, "big") + content)
    machine.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", tmp_path / "primary")
    machine.tool("tpm2_flushcontext", "-t")
    files = ("-u", tmp_path / "public", "-r", tmp_path / "private")
    machine.tool("tpm2_load", "-Q", "-C", tmp_path / "primary", *files, "-c", tmp_path / "key")
    machine.tool("tpm2_flushcontext", "-t")
    policy = "pcr:sha256:" + ",".join(map(str, PCRS))
    assert machine.tool("tpm2_unseal", "-c", tmp_path / "key", "-p", policy) == KEY


def test_another_tpm_does_not_give_it(machine: HostTpm, tmp_path: Path) -> None:
    sealed, registers = sealed_by(machine)
    other = HostTpm(tmp_path / "other")
    try:
        with pytest.raises(tpm2.WrongTpm, match="by another TPM, or by this one before it was cleared"):
            unsealed_by(other, sealed, registers)
    finally:
        other.stop()
    machine.tool("tpm2_clear", "-c", "p")
    with pytest.raises(tpm2.WrongTpm):
        unsealed_by(machine, sealed, registers)


@pytest.mark.parametrize("place", [0, 2, 40, -1])
def test_what_was_changed_on_the_disk_is_refused(machine: HostTpm, place: int) -> None:
    sealed, registers = sealed_by(machine)
    for private in (flipped(sealed.private, place), b"", sealed.private[:place], os.urandom(len(sealed.private))):
        with pytest.raises(tpm2.Tpm2Error):
            unsealed_by(machine, tpm2.Sealed(private, sealed.public), registers)
    assert unsealed_by(machine, sealed, registers) == KEY


def test_only_what_the_policy_releases_and_nothing_else_is_taken_for_sealed(machine: HostTpm) -> None:
    sealed, registers = sealed_by(machine)
    assert wire.is_ours(sealed, registers.policy)
    assert not wire.is_ours(sealed, bytes(32))
    attributes = slice(4, 8)
    # a key that a password releases, too: USERWITHAUTH
    another = bytearray(sealed.public)
    another[attributes] = (int.from_bytes(another[attributes], "big") | 1 << 6).to_bytes(4, "big")
    assert not wire.is_ours(tpm2.Sealed(sealed.private, bytes(another)), registers.policy)
    for public in (sealed.public[:-1], sealed.public + b"\0", b"", flipped(sealed.public, 0)):
        assert not wire.is_ours(tpm2.Sealed(sealed.private, public), registers.policy)


def test_a_tpm_that_is_locked_out_says_so(machine: HostTpm, tmp_path: Path) -> None:
    sealed, registers = sealed_by(machine)
    machine.tool("tpm2_dictionarylockout", "--setup-parameters", "-n", "1", "-t", "1000", "-l", "1000")
    made = ("-g", "sha256", "-G", "aes", "-p", "right", "-u", tmp_path / "u", "-r", tmp_path / "r")
    machine.tool("tpm2_createprimary", "-Q", "-C", "e", "-c", tmp_path / "primary")
    machine.tool("tpm2_create", "-Q", "-C", tmp_path / "primary", *made, "-c", tmp_path / "key")
    machine.tool("tpm2_flushcontext", "-t")
    with pytest.raises(subprocess.CalledProcessError):
        machine.tool("tpm2_encryptdecrypt", "-c", tmp_path / "key", "-p", "wrong", "-o", tmp_path / "o", stdin=KEY)
    machine.tool("tpm2_flushcontext", "-t")
    with pytest.raises(tpm2.Tpm2Error, match="it is locked out") as refused:
        unsealed_by(machine, sealed, registers)
    assert "tpm2_dictionarylockout" in refused.value.hint
    machine.tool("tpm2_dictionarylockout", "--clear-lockout")
    assert unsealed_by(machine, sealed, registers) == KEY


def test_a_tpm_whose_owner_has_a_password_says_so(machine: HostTpm) -> None:
    machine.tool("tpm2_changeauth", "-c", "owner", "secret")
    with pytest.raises(tpm2.Tpm2Error, match="its owner hierarchy has a password"):
        sealed_by(machine)


def test_a_machine_without_a_tpm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tpm2, "DEVICE", str(tmp_path / "tpmrm0"))
    with pytest.raises(tpm2.Tpm2Error, match=r"this machine has no TPM 2\.0"), tpm2.connected(0.1):
        pytest.fail("there is none")


ANSWERS = [
    b"",
    b"\x80\x01",
    b"\x80\x01\0\0\0\x0a\0\0\0",
    b"\x80\x01\0\0\0\x0b\0\0\0\0",  # says that it is longer
    b"\x12\x34\0\0\0\x0a\0\0\0\0",
    b"\x80\x01\0\0\0\x0a\0\0\0\0",  # success, and nothing
    b"\x80\x02" + (4096).to_bytes(4, "big") + bytes(4) + b"\xff" * 4086,
]


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_a_tpm_that_talks_nonsense_is_an_error_and_no_more(answer: bytes) -> None:
    """The host makes a virtual machine's TPM. After the answer it is silent, and not waited for any longer."""
    sealed, registers = tpm2.Sealed(b"private", b"public"), tpm2.Registers({4: bytes(32)})
    works: tuple[Callable[[tpm2.Tpm], object], ...] = (
        lambda tpm: tpm.registers(PCRS),
        lambda tpm: tpm.seal(Passphrase(KEY, strong=True), registers),
        lambda tpm: tpm.unseal(sealed, registers),
    )
    for work in works:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            theirs.send(answer)
            if not answer:
                theirs.close()
            with pytest.raises(tpm2.Tpm2Error, match=r"not a valid answer of a TPM|Broken pipe|timed out"):
                work(tpm2.Tpm(ours.fileno(), answers=0.1))


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


@contextlib.contextmanager
def replaying(answers: list[bytes]) -> Iterator[tpm2.Tpm]:
    """Give a TPM that gives answers in their order, whatever it is asked, and then none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for answer in answers:
            theirs.send(answer)
        theirs.shutdown(socket.SHUT_WR)
        yield tpm2.Tpm(ours.fileno(), busy=0)


def test_answers_that_are_nearly_right_are_errors_or_harmless(
    machine: HostTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of every answer changed, and every answer cut: no exception but the one that has a sentence."""
    answers: list[bytes] = []
    read = os.readv

    def record(descriptor: int, buffers: list[bytearray]) -> int:
        length = read(descriptor, buffers)
        answers.append(bytes(buffers[0][:length]))
        return length

    with machine.connected() as tpm, Passphrase(KEY, strong=True) as key, monkeypatch.context() as recorded:
        recorded.setattr(os, "readv", record)
        registers = tpm.registers(PCRS)
        sealed = tpm.seal(key, registers)
        tpm.unseal(sealed, registers).wipe()
    assert len(answers) >= 10
    tried, said = 0, set()
    for number, answer in enumerate(answers):
        for place in (*range(min(40, len(answer))), *range(40, len(answer), 16)):
            for changed in (flipped(answer, place), answer[:place]):
                with replaying([*answers[:number], changed, *answers[number + 1 :]]) as play:
                    try:
                        found = play.registers(PCRS)
                        play.seal(Passphrase(KEY, strong=True), found)
                        play.unseal(sealed, found).wipe()
                    except tpm2.Tpm2Error as error:
                        said.add(error.what)
                tried += 1
    assert tried > 500
    assert len(said) > 3
    assert all(sentence.isprintable() for sentence in said)

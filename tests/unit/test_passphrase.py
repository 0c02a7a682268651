"""A passphrase shows itself nowhere and is wiped; key material is told from what people type."""

from __future__ import annotations

import os
import pickle

import pytest

from cryptpilot_boot.passphrase import Passphrase, SecretBuffer, is_key_material


def test_it_is_shown_nowhere() -> None:
    passphrase = Passphrase(b"hunter2hunter2", strong=False)
    assert "hunter2" not in f"{passphrase} {passphrase!r}"
    with pytest.raises(TypeError):
        pickle.dumps(passphrase)


def test_it_is_overwritten_when_its_block_ends() -> None:
    with Passphrase(b"hunter2", strong=False) as passphrase:
        view = passphrase.reveal()
        assert bytes(view) == b"hunter2"
    assert bytes(view) == bytes(7)


@pytest.mark.parametrize(
    ("secret", "strong"),
    [
        (bytes(range(128, 160)), True),
        (bytes(range(128, 159)), False),
        (b"correct horse battery staple and more", False),
        ("Übergrößenträger sind keine Schlüssel".encode(), False),
        (b"\x00" * 32, True),
        (b"correct horse battery staple and m\xc3", True),
    ],
)
def test_key_material_is_long_and_no_text(secret: bytes, *, strong: bool) -> None:
    assert is_key_material(secret) is strong
    assert is_key_material(memoryview(secret)) is strong


def read_all(buffer: SecretBuffer, data: bytes) -> list[memoryview]:
    """Have `data` read into the buffer from a file, in pieces of what the buffer asks for; return a view after each."""
    views = []
    descriptor = os.memfd_create("secret")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        while buffer.fill(descriptor, 65536):
            views.append(buffer.reveal())
    finally:
        os.close(descriptor)
    return views


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 70000, 99999, 100000])
def test_a_buffer_takes_what_is_read_up_to_its_limit(length: int) -> None:
    data = os.urandom(length)
    with SecretBuffer(100000) as buffer:
        read_all(buffer, data)
        assert (bytes(buffer.reveal()), buffer.full) == (data, False)


@pytest.mark.parametrize("limit", [100, 4096, 100000])
def test_a_buffer_says_when_there_is_more(limit: int) -> None:
    with SecretBuffer(limit) as buffer:
        read_all(buffer, bytes(limit + 1))
        assert (len(buffer.reveal()), buffer.full) == (limit, True)


def test_a_buffer_leaves_nothing_behind() -> None:
    with SecretBuffer(100000) as buffer:
        *outgrown, view = read_all(buffer, b"x" * 50000)
        assert bytes(view) == b"x" * 50000
        assert len(outgrown) == 2
        assert not any(map(any, outgrown))
    assert not any(view)

"""A passphrase shows itself nowhere and is wiped; key material is told from what people type."""

from __future__ import annotations

import pickle

import pytest

from cryptpilot_boot.passphrase import Passphrase, is_key_material


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
    ],
)
def test_key_material_is_long_and_no_text(secret: bytes, *, strong: bool) -> None:
    assert is_key_material(secret) is strong

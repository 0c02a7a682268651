"""The token of a key that is sealed to a TPM: what is read of it, on a disk that is the host's to write."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cryptpilot_boot.system import luks_header, tpm2_token
from cryptpilot_boot.system import tpm2_wire as wire
from tests.headers import Template

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]
VALUES = {4: b"\x04" * 32, 7: b"\x07" * 32}
STATE = wire.Registers(VALUES)
PUBLIC = bytes.fromhex("0008000b00000412" + "0020") + STATE.policy + bytes.fromhex("0010" + "0020") + b"u" * 32
TOKEN = tpm2_token.Token(
    slots=frozenset({1}),
    together=False,
    sealed=wire.Sealed(b"private" * 20, PUBLIC),
    pcrs=(4, 7),
    policy=STATE.policy,
    values=VALUES,
    mac="0" * 64,
)
WRITTEN: Json = json.loads(json.dumps(tpm2_token.written(TOKEN)))


def read(one: object) -> list[Any]:
    return list(tpm2_token.found({"3": one}, {0, 1}))


def test_what_is_written_is_read() -> None:
    (found,) = read(WRITTEN)
    assert (found.number, found.sealed, found.policy, found.values) == (3, TOKEN.sealed, STATE.policy, VALUES)
    assert (found.slots, found.together, found.pcrs, found.mac) == ({1}, False, (4, 7), "0" * 64)


def test_it_has_the_form_of_systemds() -> None:
    """See systemd 252, src/shared/tpm2-util.c, `tpm2_make_luks2_json`."""
    ours = {"cryptpilot_pcrs", "cryptpilot_mac"}
    assert {name: value for name, value in WRITTEN.items() if name not in ours} == {
        "type": "systemd-tpm2",
        "keyslots": ["1"],
        "tpm2-blob": base64.b64encode(b"\0\x8c" + b"private" * 20 + b"\0\x4e" + PUBLIC).decode(),
        "tpm2-pcrs": [4, 7],
        "tpm2-pcr-bank": "sha256",
        "tpm2-primary-alg": "ecc",
        "tpm2-policy-hash": STATE.policy.hex(),
        "tpm2-pin": False,
    }
    # nor does systemd read a key that opens nothing alone
    together = tpm2_token.written(tpm2_token.Token(**{**vars(TOKEN), "together": True}))
    assert together["type"] == "cryptpilot-tpm2"
    assert read(together)[0].together


def test_what_changed_is_known_if_what_was_is_what_the_policy_says() -> None:
    (found,) = read(WRITTEN)
    now = wire.Registers({**VALUES, 7: bytes(32)})
    assert found.changed(now) == [7]
    lie = {**WRITTEN, "cryptpilot_pcrs": {"4": "00" * 32, "7": "00" * 32}}
    (found,) = read(lie)
    assert (found.values, found.changed(now)) == ({}, [])


def with_blob(blob: bytes) -> Json:
    return {"tpm2-blob": base64.b64encode(blob).decode()}


def halves(private: bytes, public: bytes) -> bytes:
    return b"".join(len(half).to_bytes(2, "big") + half for half in (private, public))


NOT_ALONE = PUBLIC.replace(bytes.fromhex("00000412"), bytes.fromhex("00000452"))  # USERWITHAUTH
CHANGES: list[tuple[Json, str]] = [
    ({"tpm2-pubkey": "x"}, "of a kind that cryptpilot does not make"),
    ({"tpm2_srk": "x"}, "of a kind that cryptpilot does not make"),
    ({"\x1b[2J": "x"}, "of a kind that cryptpilot does not make"),
    ({"tpm2-pin": True}, "takes a PIN"),
    ({"tpm2-pin": 0}, "takes a PIN"),
    ({"tpm2-pcr-bank": "sha1"}, "sha256"),
    ({"tpm2-primary-alg": "rsa"}, "ECC"),
    *(
        ({"tpm2-pcrs": pcrs}, "does not list PCRs")
        for pcrs in ([], [4, 4], [24], [-1], ["4"], [True], [4.0], 4, "47", {"4": 1}, None)
    ),
    ({"tpm2-pcrs": [[]]}, "does not list PCRs"),
    ({"tpm2-policy-hash": "0" * 64}, "its PCRs alone release"),
    ({"tpm2-policy-hash": "0" * 63}, "digest"),
    ({"tpm2-policy-hash": ["0"]}, "digest"),
    (with_blob(b""), "not a sealed key"),
    (with_blob(b"\xff\xff" + bytes(60)), "not a sealed key"),
    (with_blob(halves(b"p", PUBLIC) + b"\0"), "not a sealed key"),
    (with_blob(halves(b"p", PUBLIC[:-1])), "its PCRs alone release"),
    (with_blob(halves(b"p", NOT_ALONE)), "its PCRs alone release"),
    (with_blob(bytes(5000)), "too long"),
    ({"tpm2-blob": "no base64!"}, "not have the structure"),
    ({"tpm2-blob": 7}, "not have the structure"),
    ({"keyslots": ["x"]}, "not have the structure"),
    ({"keyslots": 1}, "not have the structure"),
    ({"cryptpilot_mac": "x" * 64}, "MAC"),
    ({"cryptpilot_mac": 0}, "not have the structure"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=[f"{one[0]}"[:40] for one in CHANGES])
def test_what_no_token_of_ours_says_is_refused_with_a_reason(change: Json, reason: str) -> None:
    (found,) = read({**WRITTEN, **change})
    assert isinstance(found, str)
    assert reason in found
    assert found.isprintable()


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_is_missing_is_refused_too(name: str) -> None:
    found = read({key: value for key, value in WRITTEN.items() if key != name})
    optional = {"tpm2-pin", "cryptpilot_mac", "cryptpilot_pcrs"}
    assert [isinstance(one, tpm2_token.Token) for one in found] == ([] if name == "type" else [name in optional])


@pytest.mark.parametrize("tokens", [None, [], "x", {"0": None}, {"0": []}, {"0": {"type": ["systemd-tpm2"]}}])
def test_what_is_no_token_is_passed_over(tokens: object) -> None:
    assert list(tpm2_token.found(tokens, {0})) == []


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template.made(tmp_path_factory.mktemp("header") / "disk", b"key")


def facts_with(disk: Template, change: Callable[[Json], object], tmp_path: Path) -> luks_header.Facts:
    image = disk.put(disk.both(disk.changed(change)), tmp_path / "changed")
    header, facts = luks_header.copy_from(str(image))
    with header:
        assert luks_header.metadata(header.descriptor)["tokens"] == {}
    return facts


def test_a_header_gives_the_tokens_and_cryptsetup_is_given_none(disk: Template, tmp_path: Path) -> None:
    def change(metadata: Json) -> None:
        broken = {**copy.deepcopy(WRITTEN), "tpm2-pin": True}
        metadata["tokens"] = {"0": broken, "1": {**WRITTEN, "keyslots": ["0", "9"]}}

    facts = facts_with(disk, change, tmp_path)
    assert [(one.number, one.slots) for one in facts.tpm2] == [(1, frozenset({0}))]
    assert facts.tpm2_unusable == ("it takes a PIN",)

"""Headers that somebody made to be read wrongly: each is understood as cryptsetup does, or refused in a sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptpilot_boot.config import Kms
from cryptpilot_boot.config.model import Volume
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, cryptsetup, lock, luks_header, recovery_tokens
from cryptpilot_boot.volume import State, examine, header, proof, recovery, require_restorable, state, tokens
from tests import headers
from tests.header_list import require_listed
from tests.headers import BINARY, DATA, SECOND, SLOTS, Template

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"a key for a test"
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A header as `cryptpilot init` has it made."""
    return Template.made(tmp_path_factory.mktemp("header") / "disk.img", KEY)


def volume(path: Path, *, integrity: bool = False) -> Volume:
    kms = Kms("kst-1", "secret", "{}", "password", "pem")
    return Volume("data1", str(path), kms, Path("data1.toml"), makefs="ext4", integrity=integrity)


def as_cryptsetup_reads_it(header: luks_header.Header) -> dict[str, Any] | None:
    """Return the JSON that cryptsetup finds in a copy; None if it finds no header."""
    done = subprocess.run(
        ["cryptsetup", "luksDump", "--dump-json-metadata", header.path],
        capture_output=True,
        pass_fds=[header.descriptor],
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def opens(header: luks_header.Header, key: bytes) -> bool:
    """Tell whether a key opens the volume by a copy of its header."""
    command = ["cryptsetup", "open", "--type=luks2", "--test-passphrase", "--key-file=-", header.path]
    done = subprocess.run(command, input=key, capture_output=True, pass_fds=[header.descriptor], check=False)
    return done.returncode == 0


def shown(text: str) -> str:
    """Return what goes to a terminal, which must not obey it."""
    assert text.isprintable()
    return text


def verdict(path: Path, *, integrity: bool = False) -> str:
    """Return why a header is not gone by, whoever says so; "" for one that is.

    What is gone by is what cryptsetup reads, to the letter.
    """
    try:
        header, facts = luks_header.copy_from(str(path))
    except DeviceError as error:
        return shown(error.what)
    with header:
        reason = shown(state.distrust(volume(path, integrity=integrity), facts))
        if not reason:
            assert as_cryptsetup_reads_it(header) == facts.json
            require_listed(facts.json)
    return reason


@pytest.mark.needs("cryptsetup")
def test_an_honest_header_is_copied_and_opens(template: Template) -> None:
    header, facts = luks_header.copy_from(str(template.image))
    with header:
        assert facts.json == template.metadata
        assert facts.salts == {0: template.metadata["keyslots"]["0"]["kdf"]["salt"]}
        assert (facts.integrity, facts.reencrypting, facts.ignored) == (False, False, ())
        assert as_cryptsetup_reads_it(header) == template.metadata
        assert opens(header, KEY)
        assert not opens(header, KEY + b"\n")
    assert verdict(template.image) == ""


@pytest.mark.needs("cryptsetup")
def test_what_is_put_together_here_is_a_header(template: Template, tmp_path: Path) -> None:
    """Or else all that follows would be refused for the wrong reason."""
    for algorithm in (b"sha256", b"sha512", b"sha1"):
        path = template.put(template.both(algorithm=algorithm), tmp_path / "disk.img")
        header, _ = luks_header.copy_from(str(path))
        with header:
            assert opens(header, KEY)
        assert verdict(path) == ""


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("size", [16 << 10, 32 << 10, 4 << 20])
def test_either_copy_is_enough(template: Template, tmp_path: Path, size: int) -> None:
    def move(metadata: headers.Json) -> None:
        headers.slot_area(metadata)["offset"] = str(2 * size)
        metadata["config"]["json_size"] = str(size - BINARY)
        metadata["config"]["keyslots_size"] = str(DATA - 2 * size)

    both = template.both(template.changed(move), size=size)
    with template.image.open("rb") as source:
        source.seek(SLOTS)
        slots = source.read(512 << 10)
    for missing in (None, 0, size):
        pieces = {SLOTS: bytes(512 << 10), 2 * size: slots, **both}
        if missing is not None:
            pieces[missing] = bytes(size)
        header, _ = luks_header.copy_from(str(template.put(pieces, tmp_path / "disk.img")))
        with header:
            assert opens(header, KEY), missing


def nested(depth: int) -> bytes:
    return b'{"segments": ' + b"[" * depth + b"]" * depth + b"}"


DAMAGED = "no copy of it is whole"
NONSENSE = "is invalid"
NOT_OURS = "is not to be trusted: a data segment: encryption is not aes-xts-plain64"

# By name: what is put where, and what is said to it.
HOSTILE: dict[str, tuple[Callable[[Template], dict[int, bytes]], str]] = {
    "neither copy": (lambda _: {}, DAMAGED),
    "wrong checksums": (lambda t: {0: t.copy()[:-1] + b"x", SECOND: t.copy(second=True)[:-1] + b"x"}, DAMAGED),
    "two first copies": (lambda t: {0: bytes(SECOND), SECOND: t.copy()}, DAMAGED),
    "the second copy in place of the first": (lambda t: {0: t.copy(second=True)}, DAMAGED),
    "the second copy where it does not belong": (lambda t: {2 * SECOND: t.copy(second=True)}, DAMAGED),
    "version 1": (lambda t: t.both(version=1), DAMAGED),
    "version 3": (lambda t: t.both(version=3), DAMAGED),
    "a hash nobody knows": (lambda t: t.both(algorithm=b"sha257"), DAMAGED),
    "a hash without a name": (lambda t: t.both(algorithm=b""), DAMAGED),
    "a hash without a length": (lambda t: t.both(algorithm=b"shake_128"), DAMAGED),
    "a hash that is none": (lambda t: t.both(algorithm=b"null"), DAMAGED),
    "a hash that is no text": (lambda t: t.both(algorithm=b"\xff" * 32), DAMAGED),
    "no JSON": (lambda t: t.both(b"nonsense"), NONSENSE),
    "JSON of nothing": (lambda t: t.both(b""), NONSENSE),
    "JSON that breaks off": (lambda t: t.both(json.dumps(t.metadata).encode()[:-1]), NONSENSE),
    "JSON in UTF-8 with a mark": (lambda t: t.both(b"\xef\xbb\xbf" + json.dumps(t.metadata).encode()), NONSENSE),
    "JSON in no encoding": (lambda t: t.both(b'{"segments": "\xff"}'), NONSENSE),
    "a list": (lambda t: t.both(b"[]"), NONSENSE),
    "a number": (lambda t: t.both(b"1"), NONSENSE),
    "nothing in it": (lambda t: t.both(b"{}"), NONSENSE),
    "deep nesting": (lambda t: t.both(nested(5000)), NONSENSE),
    "deeper nesting": (lambda t: t.both(nested(2000000), size=4 << 20), NONSENSE),
    "a crowd of objects": (lambda t: t.both(b"[" + b"{}," * 1300000 + b"{}]", size=4 << 20), NONSENSE),
    "a long number": (lambda t: t.both(b'{"segments": ' + b"9" * 10000 + b"}"), NONSENSE),
    "a cipher twice": (lambda t: t.both(headers.double_cipher(json.dumps(t.metadata).encode())), NONSENSE),
    "a cipher hidden by a NUL": (lambda t: t.both(headers.hide_cipher(json.dumps(t.metadata).encode())), NONSENSE),
    "half a character": (lambda t: t.both(t.changed(lambda m: m.update(more="\ud800"))), NONSENSE),
    "infinity": (lambda t: t.both(t.changed(lambda m: m.update(more=float("inf")))), NONSENSE),
    "an endless text": (lambda t: t.both(t.changed(lambda m: m.update(more="x" * (3 << 20))), size=4 << 20), NONSENSE),
    "null cipher": (
        lambda t: t.both(t.changed(lambda m: headers.set_cipher(m, "cipher_null-ecb"))),
        NOT_OURS,
    ),
    "null cipher by the kernel's name": (
        lambda t: t.both(t.changed(lambda m: headers.set_cipher(m, "capi:ecb(cipher_null)-plain64"))),
        NOT_OURS,
    ),
    "null cipher in a key slot": (
        lambda t: t.both(t.changed(lambda m: headers.set_slot_cipher(m, "cipher_null-ecb"))),
        "the place of a key slot: encryption is not aes-xts-plain64",
    ),
    "a cipher that is no text": (lambda t: t.both(t.changed(lambda m: headers.set_cipher(m, ["aes-xts"]))), NOT_OURS),
    "a cipher that a terminal obeys": (
        lambda t: t.both(t.changed(lambda m: headers.set_cipher(m, "null\x1b[2J\n" + 5000 * "x"))),
        NOT_OURS,
    ),
    "no cipher": (
        lambda t: t.both(t.changed(lambda m: headers.segment(m).pop("encryption"))),
        "a data segment has no encryption",
    ),
    "a plain segment": (lambda t: t.both(t.changed(headers.make_linear)), "a data segment: type is not crypt"),
    "a plain segment beside": (lambda t: t.both(t.changed(headers.add_linear)), "a data segment: type is not crypt"),
    "a newer second copy with a null cipher": (
        lambda t: {
            0: t.copy(),
            SECOND: t.copy(t.changed(lambda m: headers.set_cipher(m, "cipher_null-ecb")), second=True, seqid=99),
        },
        NOT_OURS,
    ),
    "a newer second copy with a null cipher in a key slot": (
        lambda t: {
            0: t.copy(),
            SECOND: t.copy(t.changed(lambda m: headers.set_slot_cipher(m, "cipher_null-ecb")), second=True, seqid=99),
        },
        "the place of a key slot: encryption is not aes-xts-plain64",
    ),
    "a newer second copy with a plain segment": (
        lambda t: {0: t.copy(), SECOND: t.copy(t.changed(headers.make_linear), second=True, seqid=99)},
        "a data segment: type is not crypt",
    ),
    "no segments": (lambda t: t.both(t.changed(lambda m: m.update(segments={}))), "it has no data segments"),
    "segments in a list": (lambda t: t.both(t.changed(lambda m: m.update(segments=[1]))), NONSENSE),
    "a segment that is none": (lambda t: t.both(t.changed(lambda m: m.update(segments={"0": 1}))), NONSENSE),
    "a key slot without a place": (
        lambda t: t.both(t.changed(lambda m: m["keyslots"]["0"].pop("area"))),
        NONSENSE,
    ),
}

OTHER_SIZE = "the area of a key slot does not have the size of its key"
# Where key slots are said to be: (offset, size), and what is said to it.
AREAS = {
    "negative": ("-32768", "258048", NONSENSE),
    "of a negative size": ("32768", "-1", NONSENSE),
    "of no size": ("32768", "0", OTHER_SIZE),
    "over the first copy": ("0", "258048", "a key slot overlaps something else"),
    "over the second copy": (str(SECOND), "258048", "a key slot overlaps something else"),
    "beyond the device": (str(1 << 50), "258048", "a key slot is outside of the key slot area"),
    "reaching into the data": (str(DATA - 4096), "258048", "a key slot is outside of the key slot area"),
    "smaller than its key": ("32768", "4096", OTHER_SIZE),
    "gigantic": ("32768", str(1 << 62), OTHER_SIZE),
    "a gigabyte": ("32768", str(1 << 30), OTHER_SIZE),
    "askew": ("32769", "258048", "the place of a key slot: offset is not a multiple of 4096"),
    "beyond all numbers": ("9" * 5000, "258048", NONSENSE),
    "numbers": (32768, 258048, NONSENSE),
    "in other digits": ("\N{ARABIC-INDIC DIGIT THREE}2768", "258048", NONSENSE),
    "with a grouping": ("32_768", "258048", NONSENSE),
    "with a space": (" 32768", "258048", NONSENSE),
    "nothing": (None, None, NONSENSE),
}


def put_area(offset: object, size: object) -> Callable[[Template], dict[int, bytes]]:
    return lambda t: t.both(t.changed(lambda m: headers.slot_area(m).update(offset=offset, size=size)))


def put_data(offset: object) -> Callable[[Template], dict[int, bytes]]:
    return lambda t: t.both(t.changed(lambda m: headers.segment(m).update(offset=offset)))


HOSTILE.update({f"a key slot {name}": (put_area(*area), said) for name, (*area, said) in AREAS.items()})
HOSTILE.update({f"data at {offset!r:.20}": (put_data(offset), NONSENSE) for offset in ("-1", "x", 1, None)})
HOSTILE.update(
    {f"data at {at}": (put_data(at), "the data do not begin after a header") for at in ("0", "32768", str(1 << 62))}
)


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_not_gone_by(template: Template, tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    path = template.put(make(template), tmp_path / "disk.img")
    assert said in verdict(path)


@pytest.mark.needs("cryptsetup")
def test_integrity_that_is_wanted_must_be_in_the_copy_that_counts(template: Template, tmp_path: Path) -> None:
    """That is the newer, which is the second here. The header in memory has nothing of the other."""

    def checksum(metadata: headers.Json) -> None:
        headers.authenticate(metadata)
        headers.segment(metadata)["integrity"]["type"] = "crc32c"

    protected = template.changed(headers.authenticate)
    bad = {
        "no integrity protection": template.changed(lambda _: None),
        "the integrity of a data segment: type is not hmac(sha256)": template.changed(checksum),
    }
    for said, text in bad.items():
        for first, second, expected in ((text, text, said), (protected, text, said), (text, protected, "")):
            pieces = {0: template.copy(first), SECOND: template.copy(second, second=True, seqid=99)}
            found = verdict(template.put(pieces, tmp_path / "disk.img"), integrity=True)
            assert expected in found if expected else found == ""


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize(
    "length",
    [0, 1, 6, 16, 511, 512, 4095, 4096, 4097, 16383, 16384, 16385, 20480, 32767, 32768, 32769, 290815, 290816, DATA],
)
def test_a_header_that_breaks_off_is_refused(template: Template, tmp_path: Path, length: int) -> None:
    """Unless all there is to copy is there: the metadata, and the one key slot up to its end."""
    path = tmp_path / "disk.img"
    path.write_bytes(template.image.read_bytes()[:length])
    reason = verdict(path)
    if length < SECOND:
        assert DAMAGED in reason
    elif length < SLOTS + 258048:
        assert NONSENSE in reason
    else:
        assert reason == ""


@pytest.mark.needs("cryptsetup")
def test_key_slots_that_would_take_more_than_all_room_are_refused(template: Template, tmp_path: Path) -> None:
    def crowd(metadata: headers.Json) -> None:
        (slot,) = metadata["keyslots"].values()
        for number in range(30):
            area = {**slot["area"], "offset": str(SLOTS + 4096 * number), "size": str(8 << 20)}
            metadata["keyslots"][str(number)] = {**slot, "area": area}

    path = template.put(template.both(template.changed(crowd), size=SECOND), tmp_path / "disk.img", size=64 << 20)
    assert OTHER_SIZE in verdict(path)


@pytest.mark.needs("cryptsetup")
def test_what_stands_in_a_key_slots_place_never_becomes_metadata(template: Template, tmp_path: Path) -> None:
    """Only one copy is whole when it is looked at; what stands in the other's place may be another a moment later."""
    path = template.put({0: template.copy(), SECOND: b"SKUL"}, tmp_path / "disk.img")
    header, _ = luks_header.copy_from(str(path))
    with header:
        first, second = (os.pread(header.descriptor, SECOND, place) for place in (0, SECOND))
        assert first[BINARY:] == second[BINARY:]
        assert json.loads(second[BINARY:].rstrip(b"\0")) == template.metadata


@pytest.mark.needs("cryptsetup")
def test_tokens_are_left_out(template: Template, tmp_path: Path) -> None:
    """By them cryptsetup would open a volume before it takes the passphrase: somebody else's, with his own token."""

    def add_token(metadata: headers.Json) -> None:
        metadata["tokens"] = {"0": {"type": "luks2-keyring", "keyslots": ["0"], "key_description": "anything"}}

    header, _ = luks_header.copy_from(str(template.put(template.both(template.changed(add_token)), tmp_path / "d.img")))
    with header:
        assert as_cryptsetup_reads_it(header) == template.metadata
        assert opens(header, KEY)


@pytest.mark.needs("cryptsetup")
def test_the_key_slots_of_recovery_keys_are_known_by_their_token(template: Template, tmp_path: Path) -> None:
    def add_tokens(metadata: headers.Json) -> None:
        metadata["tokens"] = {
            "0": {"type": "clevis", "keyslots": ["0"]},
            "3": {"type": "systemd-recovery", "keyslots": ["0", "7"]},
            "5": {"type": "systemd-recovery", "keyslots": []},
        }

    copy, facts = luks_header.copy_from(str(template.put(template.both(template.changed(add_tokens)), tmp_path / "d")))
    copy.close()
    # of the two that it names, one is not there
    assert [(one.number, one.slots) for one in facts.recovery] == [(3, frozenset({0})), (5, frozenset())]
    assert facts.recovery_slots == {0}


@pytest.mark.needs("cryptsetup")
def test_a_header_is_not_put_on_a_device_that_is_too_small(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fix_size(metadata: headers.Json) -> None:
        headers.segment(metadata)["size"] = str(16 << 20)

    disk = template.put(template.both(template.changed(fix_size)), tmp_path / "disk", size=DATA + (16 << 20))
    one = volume(disk)
    for room, name in ((block, "require_unused"), (lock, "held"), (header, "close_leftover")):
        monkeypatch.setattr(room, name, lambda *_: contextlib.nullcontext())
    for size, fits in ((DATA + (16 << 20), True), (DATA + (16 << 20) - 512, False)):
        device = block.Device(str(disk), str(disk), "1:1", "", size, "")
        monkeypatch.setattr(block, "look_up", lambda _, device=device: device)
        with contextlib.nullcontext() if fits else pytest.raises(DeviceError, match="is of a larger device"):
            assert require_restorable(one, disk, frozenset()).proven


@pytest.mark.parametrize("name", ["no such file", "a directory", "an empty file"])
def test_what_cannot_be_read_is_a_device_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk"
    if name == "a directory":
        path.mkdir()
    elif name == "an empty file":
        path.touch()
    with pytest.raises(DeviceError):
        luks_header.copy_from(str(path))


TEXTS = [
    b"cryptpilot\nTYPE=ext4",
    b"cryptpilot\nSUBSYSTEM=cryptpilot",
    b"x\nSUBSYSTEM=cryptpilot",
    b"x\rSUBSYSTEM=cryptpilot",
    "x\u2028SUBSYSTEM=cryptpilot".encode(),
    b"x\x0bSUBSYSTEM=cryptpilot",
    b"x\x85SUBSYSTEM=cryptpilot",
    b"cryptpilot\\",
    b'"cryptpilot"',
    b"\x1b[2Jcryptpilot",
    b"\xff\xfe",
    b"x" * 48,
]


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("text", TEXTS)
def test_a_label_is_not_taken_for_anything_else(template: Template, tmp_path: Path, text: bytes) -> None:
    """`blkid` writes what a header says onto lines of its own, and these are read."""
    path = template.put(template.both(label=text, subsystem=text), tmp_path / "disk.img")
    found = block.signature(str(path))
    assert found is not None
    assert found.kind == "crypto_LUKS"
    assert found.subsystem not in (state.COMPLETE, state.INITIALIZING, state.TEMPORARY)
    assert state.describe(found) == "a LUKS2 header of another program"
    path = template.put(template.both(label=text), tmp_path / "disk.img")
    assert block.signature(str(path)) == block.Signature("crypto_LUKS", "2", state.COMPLETE)


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("name", HOSTILE)
def test_show_says_that_something_is_wrong(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(block, "is_block_device", lambda _: True)
    make, _ = HOSTILE[name]
    path = template.put(make(template), tmp_path / "disk.img")
    status = examine(volume(path))
    assert status.state in (State.CHECK_FAILED, State.REQUIRES_INIT, State.REQUIRES_ADOPT)
    assert status.detail.isprintable()


# A value that is not what belongs in its place.
VALUES: list[Any] = [
    *(None, True, 0, -1, 1 << 70, "", "x", "0", "-1", str(1 << 63), "4096", "16384", [], {}, [[]], {"0": {}}),
    *("crypt", "linear", "cipher_null-ecb", "aes-xts-plain64", "hmac(sha256)", "luks2", "raw", "\u0000", "\x1b[0m"),
]


def places(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the ways to everything in a JSON object."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    return found


def replace(metadata: headers.Json, way: tuple[str, ...], value: object, *, drop: bool) -> None:
    """Put another value in a place, or drop what is there."""
    for key in way[:-1]:
        metadata = metadata.get(key, {}) if isinstance(metadata, dict) else {}
    if not isinstance(metadata, dict):
        return
    if drop:
        metadata.pop(way[-1], None)
    else:
        metadata[way[-1]] = value


MANY = settings(
    derandomize=True,
    deadline=None,
    max_examples=settings().max_examples * 6 // 5,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.needs("cryptsetup")
@MANY
@given(data=st.data())
def test_a_changed_header_is_understood_as_cryptsetup_does_or_refused(
    template: Template, tmp_path: Path, data: st.DataObject
) -> None:
    ways = places(template.metadata)

    def change(metadata: headers.Json) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            replace(
                metadata,
                data.draw(st.sampled_from(ways)),
                data.draw(st.sampled_from(VALUES)),
                drop=data.draw(st.booleans()),
            )

    changed = template.changed(change)
    honest = json.dumps(template.metadata).encode()
    first, second = data.draw(st.sampled_from([(changed, changed), (changed, honest), (honest, changed)]))
    newer = data.draw(st.integers(0, 20))
    pieces = {0: template.copy(first), SECOND: template.copy(second, second=True, seqid=newer)}
    verdict(template.put(pieces, tmp_path / "disk.img"), integrity=data.draw(st.booleans()))


@pytest.mark.needs("cryptsetup")
@MANY
@given(
    at=st.one_of(st.integers(0, 0x1BF), st.integers(BINARY, BINARY + 1100), st.integers(0, SECOND - 1)),
    byte=st.integers(0, 255),
    more=st.binary(max_size=4),
    second=st.booleans(),
    checked=st.booleans(),
)
def test_a_byte_that_differs_is_no_trouble(
    template: Template, tmp_path: Path, at: int, byte: int, more: bytes, second: bool, checked: bool
) -> None:
    content = bytearray(template.copy(second=second))
    piece = bytes([byte, *more])[: SECOND - at]
    content[at : at + len(piece)] = piece
    pieces = {SECOND if second else 0: bytes(headers.with_checksum(content) if checked else content)}
    verdict(template.put(pieces, tmp_path / "disk.img"))


MEASURE = """
import os, resource, sys
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import luks_header
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
try:
    header, _ = luks_header.copy_from(sys.argv[1])
except DeviceError:
    print("refused", peak() - before)
else:
    print("copied", peak() - before + (os.fstat(header.descriptor).st_blocks >> 11))
"""


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize("crowd", [b"{}", b"[]", b'{"a":{}}', b"10000000000"])
def test_memory_is_bounded(template: Template, tmp_path: Path, crowd: bytes) -> None:
    """In MiB: what reading the worst header may take, and what the copy of it takes."""

    def inflate(limit: int) -> bytes:
        text = json.dumps(template.metadata).encode()[:-1] + b', "more": ['
        return text + (crowd + b",") * ((limit - len(text) - 100) // (len(crowd) + 1)) + crowd + b"]}"

    def measure(text: bytes) -> tuple[str, int]:
        path = template.put(template.both(text, size=4 << 20), tmp_path / "disk.img")
        output = subprocess.run(
            [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True, cwd=CHECKOUT
        ).stdout.split()
        return output[0], int(output[1])

    refused = measure(inflate((4 << 20) - BINARY))
    assert refused[0] == "refused"
    assert refused[1] < 64
    assert measure(inflate(1 << 20))[1] < 160


@pytest.mark.needs("cryptsetup")
def test_a_recovery_key_stays_proven_when_the_secret_is_rotated(template: Template, tmp_path: Path) -> None:
    """And what nothing proved before is not proven by that."""
    path = tmp_path / "disk.img"
    shutil.copy(template.image, path)
    (tmp_path / "key").write_bytes(b"a recovery key")
    command = ["cryptsetup", "luksAddKey", "--batch-mode", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"]
    subprocess.run([*command, "--key-file=-", path, tmp_path / "key"], input=KEY, check=True)
    one, device = volume(path), block.Device(str(path), str(path), "1:1", "", path.stat().st_size, "")
    old, new, weak = (Passphrase(64 * text, strong=text != b"w") for text in (b"o", b"n", b"w"))

    def facts() -> luks_header.Facts:
        header, found = luks_header.copy_from(str(path))
        header.close()
        return found

    def proven(passphrase: Passphrase) -> set[int]:
        return proof.proven(proof.RECOVERY, facts().recovery, passphrase, facts())

    cryptsetup.add_token(str(path), recovery_tokens.written(0, "0" * 64))
    tokens.write(device, 1, recovery_tokens.written, kind=proof.RECOVERY, witness=old, facts=facts())
    assert proven(old) == {1}
    assert proven(new) == set()
    recovery.renew_proofs(one, device, old, new)
    assert proven(new) == {1}
    assert proven(old) == set()
    assert sorted(sorted(token.slots) for token in facts().recovery) == [[0], [1]]
    # a secret that could be guessed by what stands on the disk proves nothing
    recovery.renew_proofs(one, device, new, weak)
    assert proof.mac(proof.RECOVERY, weak, facts(), 1) == ""
    assert proven(weak) == set()


@pytest.mark.needs("cryptsetup")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--hash=sha1"), "hash is not sha256 or sha512"),
        pytest.param(
            ("--pbkdf=pbkdf2", "--pbkdf-force-iterations=20000001"),
            "iterations is not between 1000 and 20000000",
            marks=pytest.mark.slow,
        ),
        (
            (
                *("--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"),
                *("--keyslot-cipher=aes-cbc-essiv:sha256", "--keyslot-key-size=256"),
            ),
            "encryption is not aes-xts-plain64",
        ),
    ],
)
def test_somebodys_own_key_slot_of_another_kind_is_passed_over(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], reason: str
) -> None:
    """The volume opens by its other key slots; with no other it does not."""
    path, key = tmp_path / "disk.img", tmp_path / "key"
    shutil.copy(template.image, path)
    key.write_bytes(b"somebody's own")
    command = ["cryptsetup", "luksAddKey", "--batch-mode", *options, "--key-file=-"]
    subprocess.run([*command, path, key], input=KEY, check=True)
    copy, facts = luks_header.copy_from(str(path))
    with copy:
        assert as_cryptsetup_reads_it(copy) == template.metadata
        assert opens(copy, KEY)
        assert not opens(copy, b"somebody's own")
    assert [number for number, _ in facts.passed_over] == [1]
    assert reason in facts.passed_over[0][1]
    monkeypatch.setattr(block, "is_block_device", lambda _: True)
    monkeypatch.setattr(block, "look_up", lambda path: block.Device(path, path, "1:1", "", 1 << 30, ""))
    monkeypatch.setattr(state, "look", lambda _: block.Signature("crypto_LUKS", "2", state.COMPLETE))
    status = examine(volume(path))
    assert [one for one in status.ignored if one.startswith("key slot 1 is ignored: ")]
    subprocess.run(["cryptsetup", "luksKillSlot", "--batch-mode", path, "0"], check=True)
    with pytest.raises(luks_header.Distrusted, match=reason):
        luks_header.copy_from(str(path))


@pytest.mark.needs("cryptsetup")
def test_a_key_of_no_data_is_passed_over(template: Template, tmp_path: Path) -> None:
    """A power cut at the beginning of a reencryption leaves one, and cryptsetup opens the volume all the same."""
    path, key = tmp_path / "disk.img", tmp_path / "key"
    shutil.copy(template.image, path)
    key.write_bytes(b"of no data")
    command = ["cryptsetup", "luksAddKey", "--batch-mode", "--unbound", "--key-size=512", "--pbkdf=pbkdf2"]
    subprocess.run([*command, "--pbkdf-force-iterations=1000", path, key], input=KEY, check=True)
    assert len(Template.of(path).metadata["digests"]) == 2
    copy, facts = luks_header.copy_from(str(path))
    with copy:
        assert as_cryptsetup_reads_it(copy) == template.metadata
        assert opens(copy, KEY)
        assert not opens(copy, b"of no data")
    assert len(facts.volume_keys) == 1


@pytest.mark.needs("cryptsetup")
def test_a_token_of_somebody_elses_is_nobodys_business(template: Template, tmp_path: Path) -> None:
    """Whatever numbers it holds; in a header's own members there is no fraction."""
    text = template.changed(lambda m: m.update(tokens={"0": {"type": "other", "keyslots": ["0"], "x": 1.5}}))
    assert verdict(template.put(template.both(text), tmp_path / "disk.img")) == ""
    text = template.changed(lambda m: m["keyslots"]["0"]["af"].update(stripes=4000.0))
    assert "stripes is not 4000" in verdict(template.put(template.both(text), tmp_path / "disk.img"))

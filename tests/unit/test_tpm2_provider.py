"""The TPM as a source of a passphrase, alone and together with another; with a TPM in software and real headers."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import pty
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.config import load
from cryptpilot_boot.errors import ConfigError, KeyFetchError, ProgramError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import limit, table, together
from cryptpilot_boot.providers.execute import Exec
from cryptpilot_boot.providers.together import Together
from cryptpilot_boot.providers.tpm2 import DEFAULT, Tpm2, passphrase_of
from cryptpilot_boot.system import cryptsetup, luks_header, tpm2
from tests.headers import Template
from tests.lab.tpm import HostTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTED = tpm2.connected
KEY = bytes(range(64))
WAY_IN = b"another way in, of a volume that is there"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostTpm]:
    tpm = HostTpm(tmp_path / "tpm")
    monkeypatch.setattr(tpm2, "connected", tpm.connected)
    yield tpm
    tpm.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template.made(tmp_path_factory.mktemp("header") / "disk", WAY_IN)


@pytest.fixture
def disk(template: Template, tmp_path: Path) -> Path:
    """A disk with a volume that another passphrase opens."""
    return template.copied(tmp_path / "disk")


def no_other(_: object) -> Passphrase:
    pytest.fail("nothing else is asked")


def enroll(disk: Path, source: Any, ask: Any = no_other) -> bytes:
    """Give a volume's header what a source makes, as `cryptpilot enroll` does; return the passphrase."""
    made = keys.seal(source, ask)
    assert made
    with made as passphrase, Passphrase(WAY_IN, strong=True) as way_in:
        cryptsetup.add_key(str(disk), way_in, passphrase)
        header, _ = luks_header.copy_from(str(disk))
        with header:
            slot = cryptsetup.verify(str(disk), passphrase, header)
        cryptsetup.add_token(str(disk), made.token(slot, ""))
        return bytes(passphrase.reveal())


def asked(source: Any) -> bytes:
    with keys.prepare(source)(5) as passphrase:
        assert passphrase.strong
        return bytes(passphrase.reveal())


def refused(source: Any) -> KeyFetchError:
    with pytest.raises(KeyFetchError) as error:
        asked(source)
    return error.value


def test_what_was_sealed_is_given_and_opens_the_volume(disk: Path) -> None:
    source = Tpm2(str(disk))
    secret = enroll(disk, source)
    assert asked(source) == secret
    assert len(base64.b64decode(secret, validate=True)) == 32
    header, _ = luks_header.copy_from(str(disk))
    with header, Passphrase(secret, strong=True) as passphrase:
        assert cryptsetup.verify(str(disk), passphrase, header) == 1
    # neither half of it is on the disk
    content = disk.read_bytes()
    assert secret not in content
    assert base64.b64decode(secret) not in content


@pytest.mark.parametrize("length", range(7))
def test_it_is_written_as_base64(length: int) -> None:
    raw = bytes(range(250, 250 + length)) if length < 6 else b"\xff\x00\xfe\x7f\x80\x01"
    with passphrase_of(Passphrase(raw, strong=True)) as text:
        assert bytes(text.reveal()) == base64.b64encode(raw)


def test_systemds_plugin_takes_the_token_for_its_own(disk: Path) -> None:
    """Of cryptsetup; see the boot for systemd that opens the volume."""
    enroll(disk, Tpm2(str(disk)))
    said = subprocess.run(["cryptsetup", "luksDump", disk], check=True, capture_output=True, text=True).stdout
    for words in ("0: systemd-tpm2", "tpm2-hash-pcrs:   4+7+8+9+12", "tpm2-pcr-bank:    sha256", "Keyslot:    1"):
        assert words in said


def test_a_tpm_that_does_not_answer_is_waited_for_until_the_deadline(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives one command 120 s, however little is left."""
    source = Tpm2(str(disk))
    enroll(disk, source)
    ours, theirs = pty.openpty()

    @contextlib.contextmanager
    def silent(_: float) -> Iterator[tpm2.Tpm]:
        yield tpm2.Tpm(theirs)

    monkeypatch.setattr(tpm2, "connected", silent)
    began = time.monotonic()
    with pytest.raises(KeyFetchError, match="the TPM did not answer within 1 s"):
        keys.prepare(source)(1)
    assert time.monotonic() - began < 10
    (thread,) = [thread for thread in threading.enumerate() if thread.name == limit.THREAD]
    os.close(ours)  # which ends the thread that was left behind
    thread.join(10)
    assert not thread.is_alive()
    os.close(theirs)


def test_a_register_that_changed_is_named_and_what_to_do(machine: HostTpm, disk: Path) -> None:
    source = Tpm2(str(disk))
    enroll(disk, source)
    machine.extend(9)
    error = refused(source)
    assert error.what == (
        "the TPM does not give the key: PCR 9 changed since it was sealed (PCR 9: the kernel or the initrd, or another"
        " file that GRUB read)"
    )
    assert "open the volume by its recovery key or another source, and seal a new key: cryptpilot enroll" in error.hint
    assert not error.retryable  # so that the next source is asked at once
    machine.extend(4)
    assert "PCRs 4 and 9 changed" in refused(source).what
    # once it is sealed again, it opens; and the older one is passed over
    secret = enroll(disk, source)
    assert asked(source) == secret


def test_a_key_of_another_tpm_is_refused(machine: HostTpm, disk: Path) -> None:
    enroll(disk, Tpm2(str(disk)))
    machine.tool("tpm2_clear", "-c", "p")
    error = refused(Tpm2(str(disk)))
    assert error.what.startswith("the key was sealed by another TPM, or by this one before it was cleared")


def test_a_header_without_a_token_says_so(disk: Path) -> None:
    assert refused(Tpm2(str(disk))).what == f"the header of {disk} holds no key that is sealed to a TPM"


def tokens(disk: Path, change: Any) -> None:
    """Write other tokens to a disk, as the host may."""
    template = Template.of(disk)
    pieces = template.both(template.changed(change))
    with disk.open("r+b") as target:
        for place, piece in pieces.items():
            target.seek(place)
            target.write(piece)


def test_a_token_that_the_host_wrote_is_refused_with_the_reason(disk: Path) -> None:
    enroll(disk, Tpm2(str(disk)))
    tokens(disk, lambda metadata: metadata["tokens"]["0"].update({"tpm2-blob": "AAAA"}))
    error = refused(Tpm2(str(disk)))
    assert error.what.endswith(f"{disk} cannot be used: what it holds is not a sealed key")


def test_a_sealed_key_that_the_host_changed_is_refused(disk: Path) -> None:
    enroll(disk, Tpm2(str(disk)))

    def change(metadata: Any) -> None:
        blob = bytearray(base64.b64decode(metadata["tokens"]["0"]["tpm2-blob"]))
        blob[60] ^= 1
        metadata["tokens"]["0"]["tpm2-blob"] = base64.b64encode(blob).decode()

    tokens(disk, change)
    assert "was changed on the disk" in refused(Tpm2(str(disk))).what


def test_a_token_whose_key_slot_is_gone_is_passed_over(disk: Path) -> None:
    """What a power cut leaves when an older key is removed."""
    source = Tpm2(str(disk))
    enroll(disk, source)
    with Passphrase(WAY_IN, strong=True) as way_in:
        cryptsetup.kill_slot(str(disk), 1, way_in)
    assert "holds no key" in refused(source).what
    assert asked_after_enrolling(disk, source)


def asked_after_enrolling(disk: Path, source: Tpm2) -> bool:
    return enroll(disk, source) == asked(source)


def test_a_machine_without_a_tpm_says_so(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enroll(disk, Tpm2(str(disk)))
    monkeypatch.setattr(tpm2, "connected", lambda _: CONNECTED(0.1))
    monkeypatch.setattr(tpm2, "DEVICE", str(tmp_path / "none"))
    error = refused(Tpm2(str(disk)))
    assert error.what.startswith("this machine has no TPM 2.0")
    assert not error.retryable


# Together


def both(disk: Path, key: Path, **more: Any) -> Together:
    return Together((Exec("cat", (str(key),)), Tpm2(str(disk), together=True, **more)))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    return path


def ask_exec(source: Any) -> Passphrase:
    return keys.prepare(source)(5)


def test_both_values_are_needed(machine: HostTpm, disk: Path, key: Path) -> None:
    source = both(disk, key)
    secret = enroll(disk, source, ask_exec)
    assert asked(source) == secret
    # neither by itself, nor what systemd would make of the token
    header, facts = luks_header.copy_from(str(disk))
    sealed = facts.tpm2[0]
    with machine.connected() as tpm, tpm.unseal(sealed.sealed, tpm.registers(sealed.pcrs)) as alone:
        for value in (KEY, bytes(alone.reveal()), base64.b64encode(alone.reveal()), KEY + bytes(alone.reveal())):
            with Passphrase(value, strong=True) as passphrase, pytest.raises(ProgramError) as wrong:
                cryptsetup.verify(str(disk), passphrase, header)
            assert wrong.value.status == cryptsetup.WRONG_PASSPHRASE
    header.close()
    assert Template.of(disk).metadata["tokens"]["0"]["type"] == "cryptpilot-tpm2"


def test_each_alone_fails(machine: HostTpm, disk: Path, key: Path) -> None:
    source = both(disk, key)
    secret = enroll(disk, source, ask_exec)
    key.write_bytes(KEY[::-1])
    assert asked(source) != secret  # another value is another passphrase
    key.unlink()
    assert "exit status 1" in refused(source).what
    key.write_bytes(KEY)
    assert asked(source) == secret
    machine.extend(7)
    assert "PCR 7 changed" in refused(source).what


def test_the_command_that_seals_a_new_key_is_that_of_the_source(machine: HostTpm, disk: Path, key: Path) -> None:
    for source, name in ((Tpm2(str(disk)), "tpm2"), (both(disk, key), "together")):
        assert refused(source).hint.endswith(f": cryptpilot enroll VOLUME {name}")
        enroll(disk, source, ask_exec)
    machine.extend(9)
    for source, name in ((Tpm2(str(disk)), "tpm2"), (both(disk, key), "together")):
        assert f": cryptpilot enroll VOLUME {name}; otherwise" in refused(source).hint
    for source in (Tpm2(str(disk)), both(disk, key)):
        enroll(disk, source, ask_exec)
    machine.tool("tpm2_clear", "-c", "p")
    assert refused(Tpm2(str(disk))).hint.endswith("seal a new key: cryptpilot enroll VOLUME tpm2")
    assert refused(both(disk, key)).hint.endswith("seal a new key: cryptpilot enroll VOLUME together")


def test_what_is_sealed_for_one_is_not_taken_for_the_other(disk: Path, key: Path) -> None:
    enroll(disk, both(disk, key), ask_exec)
    assert "holds no key that is sealed to a TPM" in refused(Tpm2(str(disk))).what
    enroll(disk, Tpm2(str(disk)))
    assert len(asked(Tpm2(str(disk)))) == 44
    assert len(asked(both(disk, key))) == 32


def test_the_passphrase_is_derived_by_hkdf() -> None:
    """RFC 5869, written a second time: what volumes are opened with must not change."""
    parts = [("tpm2", b"T" * 44), ("kms", b"K" * 256)]
    fed = b""
    for name, value in sorted(parts):
        fed += len(name).to_bytes(8, "big") + name.encode() + len(value).to_bytes(8, "big") + value
    extracted = hmac.digest(b"cryptpilot together, version 1", fed, "sha256")
    expected = hmac.digest(extracted, b"passphrase of a LUKS2 key slot\x01", "sha256")
    passphrases = [(name, Passphrase(value, strong=True)) for name, value in parts]
    with together.combined(passphrases) as found:
        assert bytes(found.reveal()) == expected
        assert found.strong
    assert not any(any(one.reveal()) for _, one in passphrases)
    assert hashlib.sha256(expected).hexdigest() == "49bc131f37f73b4914432f6afa4cb8e23329e31c0314fb519e13fa2889a906f9"


def test_what_belongs_to_one_value_cannot_be_moved_to_the_other() -> None:
    seen = set()
    for values in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")):
        parts = [(name, Passphrase(value.encode(), strong=True)) for name, value in zip(("kms", "tpm2"), values)]
        with together.combined(parts) as found:
            seen.add(bytes(found.reveal()))
    assert len(seen) == 4


def test_a_weak_value_is_stretched_although_the_other_is_strong() -> None:
    parts = [("kms", Passphrase(b"password", strong=False)), ("tpm2", Passphrase(KEY, strong=True))]
    with together.combined(parts) as found:
        assert not found.strong


# The configuration


def configured(tmp_path: Path, text: str) -> Any:
    directory = tmp_path / "etc"
    (directory / "volumes").mkdir(parents=True, exist_ok=True)
    file = directory / "volumes/data.toml"
    file.write_text(f'volume = "data"\ndev = "/dev/vdb"\n{text}')
    file.chmod(0o600)
    config = load(directory, others=False)
    if config.problems:
        raise config.problems[0]
    return config.volumes[0]


def test_the_table_may_be_empty(tmp_path: Path) -> None:
    volume = configured(tmp_path, "[encrypt.tpm2]\n")
    assert volume.encrypt == Tpm2("/dev/vdb", DEFAULT)
    assert not volume.needs_network
    assert not volume.temporary
    assert keys.describe(volume.encrypt) == {"provider": "this machine's TPM, PCRs 4, 7, 8, 9, 12"}
    assert table.of(volume.encrypt).needs(volume.encrypt).modules == ("tpm_tis", "tpm_crb")


def test_it_may_be_a_fallback_alone_and_together(tmp_path: Path) -> None:
    volume = configured(
        tmp_path,
        "[encrypt.exec]\ncommand = 'x'\n[[fallback]]\n[fallback.tpm2]\npcrs = [7]\n[[fallback]]\n"
        + TOGETHER.replace("encrypt", "fallback"),
    )
    assert [one.encrypt for one in volume.fallbacks] == [
        Tpm2("/dev/vdb", (7,)),
        Together((Exec("cat"), Tpm2("/dev/vdb", together=True))),
    ]


def test_registers_are_chosen(tmp_path: Path) -> None:
    assert configured(tmp_path, "[encrypt.tpm2]\npcrs = [7, 4]\n").encrypt.pcrs == (4, 7)


@pytest.mark.parametrize("pcrs", ["[]", "[4, 4]", "[16]", "[-1]", '["4"]', "[4.0]", "[true]", "4", '"4"', "[[4]]"])
def test_what_are_no_registers_is_refused(tmp_path: Path, pcrs: str) -> None:
    with pytest.raises(ConfigError, match=r'data\.toml:4: "encrypt\.tpm2\.pcrs" must '):
        configured(tmp_path, f"[encrypt.tpm2]\npcrs = {pcrs}\n")


TOGETHER = "[encrypt.together.exec]\ncommand = 'cat'\n[encrypt.together.tpm2]\n"


def test_together_reads_as_what_it_is(tmp_path: Path) -> None:
    volume = configured(tmp_path, TOGETHER)
    assert volume.encrypt == Together((Exec("cat"), Tpm2("/dev/vdb", together=True)))
    assert keys.describe(volume.encrypt) == {
        "provider": "command cat together with this machine's TPM, PCRs 4, 7, 8, 9, 12"
    }
    assert table.of(volume.encrypt).needs(volume.encrypt).programs == ("cat",)


KBS = 'cdh_type = "one-shot"\nkey_uri = "kbs:///a/b/c"\nkbs_url = "http://kbs.example"\n'


def test_together_needs_all_that_each_of_them_needs(tmp_path: Path) -> None:
    source = configured(tmp_path, f"[encrypt.together.kbs]\n{KBS}[encrypt.together.tpm2]\n").encrypt
    needs = table.of(source).needs(source)
    each = [table.of(one).needs(one) for one in source.sources]
    for field in dataclasses.fields(needs):
        values = [getattr(one, field.name) for one in each]
        assert getattr(needs, field.name) == (any(values) if isinstance(values[0], bool) else values[0] + values[1])
    assert needs.units == ("attestation-agent.service",)
    assert "tdx_guest" in needs.drivers
    assert {"tpm_tis", "tpm_crb"} <= set(needs.modules)


@pytest.mark.parametrize(
    "text",
    [
        f"[encrypt.kbs]\n{KBS}",
        f"[encrypt.together.kbs]\n{KBS}[encrypt.together.tpm2]\n",
        f"[encrypt.exec]\ncommand = 'x'\n[[fallback]]\n[fallback.kbs]\n{KBS}",
    ],
    ids=["alone", "together", "fallback"],
)
def test_what_should_be_seen_to_is_said_wherever_the_source_stands(tmp_path: Path, text: str) -> None:
    configured(tmp_path, text)
    (warning,) = load(tmp_path / "etc", others=False).warnings
    assert "data.toml: kbs_url is not https" in warning


REFUSED = [
    ("[encrypt.together]\n", r"\[encrypt\.together\] needs the tables of two providers or more"),
    ("[encrypt.together.tpm2]\n", r"data\.toml:3: \[encrypt\.together\] needs the tables of two providers or more"),
    (
        TOGETHER + "[encrypt.together.otp]\n",
        r"data\.toml:\d+: \[encrypt\.together\.otp\] gives another key at each open",
    ),
    (TOGETHER + "[encrypt.together.together.tpm2]\n", r"\[encrypt\.together\.together\] has no meaning: a volume has"),
    (TOGETHER + "[encrypt.together.kmss]\n", r'unknown table "encrypt\.together\.kmss" \(did you mean "kms"\?\)'),
    (TOGETHER + "[encrypt.tpm2]\n", "exactly one of .* is needed, found 2 of them"),
    (TOGETHER + "pcr = [4]\n", 'unknown key "encrypt.together.tpm2.pcr"'),
    ("[encrypt.together]\ntpm2 = 1\nexec = 2\n", '"encrypt.together.tpm2" must be a table'),
    ("[encrypt.together.tpm2]\n[encrypt.together.exec]\n", 'missing key "command" in .encrypt.together.exec.'),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_makes_no_sense_together_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configured(tmp_path, text)


def test_no_secret_is_quoted(disk: Path, key: Path) -> None:
    source = both(disk, key)
    enroll(disk, source, ask_exec)
    shown = json.dumps([repr(source), keys.describe(source)])
    assert KEY.hex() not in shown

"""Files pasted into a configuration: what can mean nothing else is mended, all else is named, and none of it quoted."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from cryptpilot_boot import keys
from cryptpilot_boot.config import Kms, load
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import client_key_text as client_key
from cryptpilot_boot.providers import pem
from cryptpilot_boot.system import certificates
from tests.kms.pki import make_authority, make_pki, private_pem

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kms.pki import Pki

AUTHORITY = make_authority()
CHAIN = AUTHORITY.pem
FIRST = CHAIN[: CHAIN.index("-----BEGIN", 1)]
DER = ssl.PEM_cert_to_DER_cert(FIRST)


def block(der: bytes, label: str = "CERTIFICATE") -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def test_certificates_as_they_are_written_stay_as_they_are() -> None:
    assert pem.canonical(CHAIN) == CHAIN
    assert CHAIN.count("BEGIN") == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n-----BEGIN", "\n\ufeff-----BEGIN"),
        lambda text: "# Autorit\u00e9 de certification, \u6771\u4eac\n" + text,
        lambda text: (
            "subject=CN = a root\n" + text.replace("\n-----BEGIN", "\n\nsubject=CN = b\n-----BEGIN") + "\n# end\n"
        ),
        lambda text: "---- ROOT CERTIFICATE ----\n" + text,
        lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"\t{line}\n" for line in text.splitlines()),
        lambda text: text.replace("\n", "  \n"),
        lambda text: text.replace("\n", "\u00a0\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", "\\n"),
        lambda text: text.replace("\n", "\\r\\n"),
        lambda text: text.replace("-----\n-----", "-" * 10),
        lambda text: text.replace("-----\n", "-----").replace("\n-----", "-----"),
        lambda text: text.replace("CERTIFICATE", "X509 CERTIFICATE"),
        lambda text: text.rstrip(),
    ],
)
def test_what_can_mean_nothing_else_is_mended(damage: Callable[[str], str]) -> None:
    text = damage(CHAIN)
    assert text != CHAIN
    assert pem.complaint(text) == ""
    assert pem.canonical(text) == CHAIN
    certificates.trusting(pem.canonical(text), "")  # as TLS reads it


@pytest.mark.parametrize(
    "text",
    [base64.b64encode(DER).decode(), base64.encodebytes(DER).decode(), "\ufeff" + base64.b64encode(DER).decode()],
)
def test_one_certificate_needs_no_boundaries(text: str) -> None:
    assert pem.canonical(text) == FIRST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no BEGIN CERTIFICATE and END CERTIFICATE lines"),
        ("hello", "it has no BEGIN CERTIFICATE and END CERTIFICATE lines"),
        (FIRST.replace("BEGIN CERTIFICATE", "BEGIN"), "has an END line and no BEGIN CERTIFICATE line"),
        (CHAIN + block(b""), "certificate 3 is empty"),
        (FIRST + FIRST.replace("MII", "MI!", 1), "certificate 2 is not base64: U+0021 in line 1 below its BEGIN line"),
        (FIRST.replace("MII", "\u200bMII", 1), "certificate 1 is not base64: U+200B in line 1 below its BEGIN line"),
        (
            FIRST.replace("-----\nM", "-----\nProc-Type: 4,ENCRYPTED\n\nM"),
            "certificate 1 is not base64: U+002D in line 1",
        ),
        (FIRST.replace("M", "", 1), "certificate 1 is not base64: characters are missing, or too many"),
        (block(DER[:-5]), f"certificate 1 is cut off: it has {len(DER) - 5} of {len(DER)} bytes"),
        (block(DER + b"12"), "certificate 1 has 2 bytes too many at its end"),
        (block(b"\x30"), "certificate 1 is cut off, or no certificate"),
        (block(b"\x30\xff\xff"), "certificate 1 is cut off, or no certificate"),
        (block(b"plain words"), "certificate 1 is no certificate"),
        (block(b"\x30\x02\x30\x00"), "certificate 1 is cut off, or no certificate"),
        (CHAIN.replace("-----END", "----END", 1), "certificate 1 has no END CERTIFICATE line"),
        (CHAIN[: CHAIN.rindex("-----END")], "certificate 2 has no END CERTIFICATE line: the text is cut off"),
        (CHAIN.replace("\n-----BEGIN", "\n----BEGIN"), "certificate 2 has an END line and no BEGIN CERTIFICATE line"),
        (FIRST + "----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE----\n", "line of certificate 2 is damaged"),
        (FIRST + "-----BEGIN CERTIFICATE----\nAAAA\n", "line of certificate 2 is damaged"),
        (
            CHAIN.replace("-----END CERT", "-----END X509 CERT"),
            "certificate 1 has another END line than its BEGIN line",
        ),
        (block(DER, "TRUSTED CERTIFICATE"), "block 1 is a TRUSTED CERTIFICATE"),
        (CHAIN + private_pem(AUTHORITY.key), "block 3 is a private key, which does not belong here: remove it"),
        (block(base64.b64decode("".join(private_pem(AUTHORITY.key).split("\n")[1:-2]))), "1 is a private key, and no"),
        (pkcs7.serialize_certificates([AUTHORITY.root], Encoding.PEM).decode(), "block 1 is a PKCS#7 container"),
        (block(pkcs7.serialize_certificates([AUTHORITY.root], Encoding.DER)), "certificate 1 is a PKCS#7 container"),
        (block(DER, "CERTIFICATE REQUEST"), "block 1 is a certificate request"),
        (block(DER, "OPENSSH TICKET"), "block 1 is a PEM block of another kind, and no certificate"),
    ],
    ids=lambda _: "text",  # the certificates are made anew by each process
)
def test_what_cannot_be_read_is_named(text: str, said: str) -> None:
    complaint = pem.complaint(text)
    assert said in complaint
    assert complaint.isascii()
    assert complaint.isprintable()
    with pytest.raises(pem.Unreadable, match=re.escape(complaint)):
        pem.canonical(text)


def test_any_beginning_of_a_chain_is_whole_or_named() -> None:
    """Nor does TLS ever find fault with what is taken for whole."""
    whole = set()
    for end in range(len(CHAIN)):
        if not pem.complaint(CHAIN[:end]):
            whole.add(pem.canonical(CHAIN[:end]))
    assert whole == {FIRST, CHAIN}


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "\ufeff" + text,
        lambda text: json.dumps(json.loads(text), indent=4).replace("\n", "\r\n"),
        lambda text: text.replace("{", "{\n").replace(",", ",\n\t") + "\n\n",
        lambda text: text.replace('Data": "MII', 'Data": "MI\nI'),
        lambda text: text.replace('Data": "MII', 'Data": "MI\\nI'),
        lambda text: text.replace('Data":"MII', 'Data": " MI\r\nI'),
    ],
)
def test_a_client_key_is_mended_too(pki: Pki, damage: Callable[[str], str]) -> None:
    right = client_key.canonical(pki.client_key.text)
    assert client_key.complaint(damage(pki.client_key.text)) == ""
    assert client_key.canonical(damage(pki.client_key.text)) == right
    assert json.loads(right) == {
        name: value for name, value in json.loads(pki.client_key.text).items() if name in ("KeyId", "PrivateKeyData")
    }


KEY = '{"KeyId": "KAAP.1", "PrivateKeyData": "MIIJ"}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON, or not all of it"),
        (KEY[:-1], "it is not JSON, or not all of it"),
        (KEY + KEY, "it holds more than one JSON object"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", 'it has no "KeyId" and "PrivateKeyData"'),
        (KEY.replace("KAAP.1", " "), 'it has no "KeyId" and "PrivateKeyData"'),
        (KEY.replace('"MIIJ"', "5"), 'it has no "KeyId" and "PrivateKeyData"'),
        (KEY.replace("KAAP.1", "KAAP.1\\r\\nx: y"), "its KeyId is no name of a client key"),
        (KEY.replace("MIIJ", "MII"), "its PrivateKeyData is not base64"),
        (KEY.replace("MIIJ", "M\u00efIJ"), "its PrivateKeyData is not base64"),
    ],
)
def test_what_is_no_client_key_is_named(text: str, said: str) -> None:
    assert said in client_key.complaint(text)
    assert "MII" not in client_key.complaint(text)


@pytest.mark.parametrize("text", ["pass word", "\ufeffpass word", "pass word\n", "\r\npass word\r\n"])
def test_a_password_is_mended_too(text: str) -> None:
    assert client_key.password_complaint(text) == ""
    assert client_key.canonical_password(text) == "pass word"


@pytest.mark.parametrize("text", ["", "\n", " \n", "two\nlines", "bell\x07", "nul\0"])
def test_what_is_no_password_is_named(text: str) -> None:
    assert client_key.password_complaint(text).startswith("must ")


VOLUME = """\
volume = "{name}"
dev = "/dev/{name}"
auto_open = true
[encrypt.kms]
{section}
"""
CLIENT_KEY = f"""\
kms_instance_id = "kst-1"
secret_name = "disk"
client_key = '''{KEY}'''
client_key_password = "p"
kms_cert_pem = '''
PEM'''
"""
ROLE = """\
auth_mode = "ecs_ram_role"
secret_name = "disk"
kms_cert_pem = '''
PEM'''
"""


def configure(directory: Path, **sections: str) -> None:
    (directory / "volumes").mkdir(exist_ok=True)
    for name, section in sections.items():
        (directory / f"volumes/{name}.toml").write_text(VOLUME.format(name=name, section=section), encoding="utf-8")
        (directory / f"volumes/{name}.toml").chmod(0o600)


def ask_cryptpilot(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cryptpilot_boot", "--config-dir", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("section", [CLIENT_KEY, ROLE], ids=["client key", "role"])
def test_a_chain_that_is_mended_is_its_volumes_configuration(tmp_path: Path, section: str) -> None:
    accent = "\ufeff# Autorit\u00e9\n" + CHAIN.replace("-----\n-----", "-" * 10).replace("\n", "\n   ")
    configure(tmp_path, odd=section.replace("PEM", accent), plain=section.replace("PEM", CHAIN))
    config = load(tmp_path)
    assert config.problems == ()
    odd, plain = (volume.encrypt for volume in config.volumes)
    assert odd == plain
    assert getattr(odd, "kms_cert_pem", None) == CHAIN


@pytest.mark.parametrize("section", [CLIENT_KEY, ROLE], ids=["client key", "role"])
def test_what_cannot_be_mended_is_one_volumes_error_and_stops_an_image(tmp_path: Path, section: str) -> None:
    broken = CHAIN.replace("-----END", "----END", 1)
    configure(tmp_path, bad=section.replace("PEM", broken), good=section.replace("PEM", CHAIN))
    line = 5 + section.partition("PEM")[0].count("\n") - 1
    said = f'{tmp_path}/volumes/bad.toml:{line}: "encrypt.kms.kms_cert_pem" must be '
    what = "certificate 1 has no END CERTIFICATE line"
    plan = ask_cryptpilot(tmp_path, "initrd", "plan")
    check = ask_cryptpilot(tmp_path, "config", "check", "--keep-checking", "--skip-check-passphrase")
    for done in (plan, check):
        assert done.returncode == 2
        assert said in done.stderr
        assert what in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert "internal error" not in done.stderr + done.stdout
    assert "good: warning: its disk is not attached" in check.stdout
    assert plan.stdout == ""


@pytest.mark.parametrize("section", [CLIENT_KEY, ROLE], ids=["client key", "role"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ('"""\ndisk\n"""', "must have no white space at its beginning or end"),
        ('" disk"', "must have no white space at its beginning or end"),
        ('"disk\\u00a0"', "must have no white space at its beginning or end"),
        ('"di\\nsk"', "must be the name of a secret: 1 to 192 letters, digits and _/+=.@-"),
        ('"di\\u001b[31msk"', "must be the name of a secret"),
        ('"di\\u202esk"', "must be the name of a secret"),
        ('""', "must be the name of a secret"),
        (f'"{"x" * 193}"', "must be the name of a secret"),
    ],
)
def test_what_is_no_name_of_a_secret_is_refused_when_the_file_is_read(
    tmp_path: Path, section: str, name: str, said: str
) -> None:
    configure(tmp_path, bad=section.replace("PEM", CHAIN).replace('"disk"', name))
    (problem,) = load(tmp_path).problems
    assert f'"encrypt.kms.secret_name" {said}' in problem.what
    assert problem.what.isprintable()


ARN = "acs:kms:cn-hangzhou:1234567890123456:secret/disk"


def test_a_full_name_is_for_a_role_alone(tmp_path: Path) -> None:
    client = CLIENT_KEY.replace("PEM", CHAIN).replace('"disk"', f'"{ARN}"')
    configure(tmp_path, client=client, role=ROLE.replace("PEM", CHAIN).replace('"disk"', f'"{ARN}"'))
    config = load(tmp_path)
    assert [(volume.volume, getattr(volume.encrypt, "region", "")) for volume in config.volumes] == [
        ("role", "cn-hangzhou")
    ]
    (problem,) = config.problems
    assert '"encrypt.kms.secret_name" must be the name alone with a client key: "disk"' in problem.what


@pytest.mark.parametrize(
    "name",
    [
        "acs:kms:cn-hangzhou:disk",
        ARN.replace("cn-hangzhou", "*"),
        ARN.replace("cn-hangzhou", "evil.example/"),
        ARN.replace("1234567890123456", ""),
        ARN.replace("1234567890123456", "me"),
        ARN.replace("secret/disk", "secret/"),
        ARN.replace("secret/disk", "key/disk"),
        ARN + "?x=1",
        ARN.replace("kms", "oss"),
    ],
)
def test_a_full_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    configure(tmp_path, role=ROLE.replace("PEM", CHAIN).replace('"disk"', f'"{name}"'))
    (problem,) = load(tmp_path).problems
    assert '"encrypt.kms.secret_name" must be "acs:kms:<region>:<account, in digits>:secret/<name>"' in problem.what


def test_a_full_name_and_a_region_have_to_agree(tmp_path: Path) -> None:
    full = ROLE.replace("PEM", CHAIN).replace('"disk"', f'"{ARN}"')
    configure(tmp_path, same=full + 'region_id = "cn-hangzhou"', other=full + 'region_id = "cn-beijing"')
    config = load(tmp_path)
    assert [volume.volume for volume in config.volumes] == ["same"]
    (problem,) = config.problems
    line = 5 + full.count("\n")
    assert problem.what == (
        f'{tmp_path}/volumes/other.toml:{line}: "encrypt.kms.region_id" must be the region in secret_name, cn-hangzhou'
    )
    assert "remove it" in problem.hint


def test_a_certificate_that_is_not_ascii_is_no_traceback(pki: Pki) -> None:
    """A value that was made by other means than a file."""
    kms = Kms("kst-1", "disk", pki.client_key.text, pki.client_key.password, CHAIN, "127.0.0.1:9")
    with pytest.raises(KeyFetchError, match="kms_cert_pem cannot be read as certificates"):
        keys.prepare(dataclasses.replace(kms, kms_cert_pem="\u00e9" + CHAIN))


# What becomes of boundary lines on their way, by a text that takes the place of both.
CHANGED = {
    "autocorrected": ("\u2014\u2013BEGIN CERTIFICATE\u2014\u2013", "\u2014\u2013END CERTIFICATE\u2014\u2013"),
    "of an input method": (
        "\uff0d" * 5 + "BEGIN CERTIFICATE" + "\uff0d" * 5,
        "\uff0d" * 5 + "END CERTIFICATE" + "\uff0d" * 5,
    ),
    "with minus signs": (
        "\u2212" * 5 + "BEGIN CERTIFICATE" + "\u2212" * 5,
        "\u2212" * 5 + "END CERTIFICATE" + "\u2212" * 5,
    ),
    "in small letters": ("-----begin certificate-----", "-----end certificate-----"),
    "without dashes": ("BEGIN CERTIFICATE", "END CERTIFICATE"),
    "with what does not show": ("-----BEGIN\u200b CERTIFICATE-----", "-----END\u200b CERTIFICATE-----"),
    "lost": ("", ""),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", CHANGED)
def test_a_certificate_whose_boundaries_were_changed_is_not_left_out(name: str, first: bool) -> None:
    """The other one is whole: by that alone no gateway would be trusted, and nobody would know before it is asked."""
    begin, end = CHANGED[name]
    changed = FIRST.replace("-----BEGIN CERTIFICATE-----", begin).replace("-----END CERTIFICATE-----", end)
    said = pem.complaint(changed + FIRST if first else FIRST + changed)
    assert re.search("is damaged: five dashes|no BEGIN CERTIFICATE and END CERTIFICATE lines|is not base64", said), said

"""The binding of OpenSSL: it opens what `cryptography` opens, signs as that does, and no input ends the process."""

from __future__ import annotations

import base64
import copy
import ctypes
import json
import os
import pickle
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from buildlib import interpreter
from buildlib.base import ROOT
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import client_key
from cryptpilot_boot.system import libcrypto
from tests.kms.pki import ClientKey, make_client_key, old_client_key
from tests.unit.test_client_key_end import section

PASSWORD = "correct horse"
UTC = timezone.utc

# What `openssl pkcs12 -export` is given: the default of OpenSSL 1.1 is -legacy of 3.0.
KINDS = {
    "OpenSSL 1.1": ("-legacy",),
    "RC2-40": ("-legacy", "-keypbe", "PBE-SHA1-RC2-40", "-certpbe", "PBE-SHA1-RC2-40"),
    "RC2-128": ("-legacy", "-keypbe", "PBE-SHA1-RC2-128", "-certpbe", "PBE-SHA1-RC2-128"),
    "3DES": ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"),
    "DES": ("-legacy", "-keypbe", "PBE-MD5-DES", "-certpbe", "PBE-MD5-DES"),
    "AES-128": ("-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC"),
    "AES-256": ("-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC", "-macalg", "sha256"),
    "certificate in the clear": ("-certpbe", "NONE"),
    "all in the clear": ("-keypbe", "NONE", "-certpbe", "NONE"),
    "no certificate": ("-nocerts",),
}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RSA key and its certificate, in one file."""
    place = tmp_path_factory.mktemp("pem") / "key.pem"
    command = ["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=KAAP", "-days", "20"]
    openssl(*command, "-keyout", place, "-out", f"{place}.crt")
    place.write_bytes(place.read_bytes() + Path(f"{place}.crt").read_bytes())
    return place


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


@cache
def exported(pem: Path, kind: str) -> bytes:
    options = KINDS.get(kind, ("-nomac", "-keypbe", "NONE", "-certpbe", "NONE"))
    return openssl("pkcs12", "-export", "-in", pem, "-passout", f"pass:{PASSWORD}", *options)


def wrapped(data: bytes, password: str = PASSWORD) -> ClientKey:
    text = json.dumps({"KeyId": "KAAP.1", "PrivateKeyData": base64.b64encode(data).decode()})
    return ClientKey("KAAP.1", text, password)


def made(key: Any = None, certificate: Any = None, others: Any = None, password: str = PASSWORD) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"name", key, certificate, others, BestAvailableEncryption(password.encode())
    )


@pytest.fixture(params=["of the checks", pytest.param("that is frozen", marks=pytest.mark.slow)], scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreters, whose libraries are OpenSSL 3.0 of Debian 12, and the one that is compiled here."""
    return Path(sys.executable) if request.param == "of the checks" else interpreter.interpreter().path


_SIGN = """
import json, sys
from cryptpilot_boot.system import libcrypto
path, password, *messages = sys.argv[1:]
key, validities = libcrypto.open_pkcs12(open(path, "rb").read(), password.encode())
signatures = [key.sign(message.encode()).hex() for message in messages]
print(json.dumps([key.is_rsa, signatures, [[f"{one.begin}", f"{one.end}"] for one in validities]]))
"""


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", [*KINDS, "no MAC"])
def test_each_kind_of_file_opens_and_its_key_signs(python: Path, pem: Path, tmp_path: Path, kind: str) -> None:
    if kind == "no MAC" and python == Path(sys.executable):
        pytest.skip("OpenSSL 3.0 asks for one")
    data = exported(pem, kind)
    (tmp_path / "file").write_bytes(data)
    messages = ["", "POST\n", "x" * 100_000]
    command: list[str | Path] = [python, "-c", _SIGN, tmp_path / "file", PASSWORD, *messages]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    is_rsa, signatures, validities = json.loads(done.stdout)
    theirs, certificate, _ = pkcs12.load_key_and_certificates(data, PASSWORD.encode())
    assert is_rsa
    assert isinstance(theirs, rsa.RSAPrivateKey)
    for message, signature in zip(messages, signatures):
        theirs.public_key().verify(bytes.fromhex(signature), message.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert validities == (
        [[f"{certificate.not_valid_before_utc}", f"{certificate.not_valid_after_utc}"]] if certificate else []
    )


def test_the_old_client_key_that_the_build_tries_is_one() -> None:
    data = base64.b64decode(json.loads(old_client_key().text)["PrivateKeyData"])
    pbe_with_sha1_and = "060a2a864886f70d010c01"
    for cipher in ("06", "03"):  # RC2 with 40 bits, 3DES
        assert bytes.fromhex(pbe_with_sha1_and + cipher) in data


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_key_may_be_of_each_kind(pem: Path, kind: str) -> None:
    data = exported(pem, kind)
    _, certificate, _ = pkcs12.load_key_and_certificates(data, PASSWORD.encode())
    opened = client_key.opened(section(wrapped(data)))
    assert opened.ends == (certificate.not_valid_after_utc if certificate else None)


@pytest.mark.parametrize("bits", [1024, 3072, 4096])
def test_a_key_of_any_length_signs(bits: int) -> None:
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    key, _ = libcrypto.open_pkcs12(made(theirs), PASSWORD.encode())
    assert key is not None
    theirs.public_key().verify(key.sign(b"text"), b"text", padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("password", ["", "Correct horse", f"{PASSWORD} ", "\u20ac\u00e9", "x" * 10_000])
def test_another_password_opens_nothing(pem: Path, kind: str, password: str) -> None:
    data = exported(pem, kind)
    with pytest.raises(libcrypto.CryptoError) as caught:
        libcrypto.open_pkcs12(data, password.encode())
    assert str(caught.value) == ""
    with pytest.raises(KeyFetchError, match="client_key is damaged, or client_key_password is not its password"):
        client_key.opened(section(wrapped(data, password)))


@pytest.mark.needs("openssl")
def test_what_follows_a_null_byte_of_a_password_counts(pem: Path) -> None:
    with pytest.raises(libcrypto.CryptoError):
        libcrypto.open_pkcs12(exported(pem, "AES-256"), f"{PASSWORD}\0more".encode())


def test_a_password_need_not_be_ascii() -> None:
    password = "sch\u00f6ner \u20ac"
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key, _ = libcrypto.open_pkcs12(made(theirs, password=password), password.encode())
    assert key is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"0",
        b"\x30\x80",
        b"\x30\x84\xff\xff\xff\xff",
        b"text" * 1000,
        bytes(1 << 20),
        b"\x30\x80" * 100_000,
    ],
    ids=lambda data: f"{data[:6].hex()} {len(data)}",
)
def test_what_is_no_pkcs12_is_refused(data: bytes) -> None:
    with pytest.raises(libcrypto.CryptoError):
        libcrypto.open_pkcs12(data, PASSWORD.encode())


def test_a_key_that_is_not_rsa_is_refused() -> None:
    data = made(ed25519.Ed25519PrivateKey.generate())
    key, _ = libcrypto.open_pkcs12(data, PASSWORD.encode())
    assert key is not None
    assert not key.is_rsa
    with pytest.raises(libcrypto.CryptoError):  # which knows no digest
        key.sign(b"text")
    with pytest.raises(KeyFetchError, match="holds no RSA private key"):
        client_key.opened(section(wrapped(data)))


def test_a_file_without_a_key_is_refused() -> None:
    (certificate,) = certificates(make_client_key())
    data = made(None, None, [certificate])
    assert libcrypto.open_pkcs12(data, PASSWORD.encode()) == (None, [])
    with pytest.raises(KeyFetchError, match="holds no RSA private key"):
        client_key.opened(section(wrapped(data)))


def certificates(key: ClientKey) -> list[Any]:
    data = base64.b64decode(json.loads(key.text)["PrivateKeyData"])
    _, certificate, others = pkcs12.load_key_and_certificates(data, key.password.encode())
    return [*filter(None, [certificate]), *others]


def test_of_several_certificates_those_of_the_key_count() -> None:
    day = datetime(2030, 1, 1, tzinfo=UTC)
    mine, another = make_client_key(not_after=day), make_client_key(not_after=day.replace(year=2031))
    key = mine.private_key()
    for own, others in ((certificates(mine)[0], certificates(another)), (None, certificates(another) * 3)):
        data = made(key, own, [*others, *certificates(mine)])
        _, validities = libcrypto.open_pkcs12(data, PASSWORD.encode())
        assert {one.end for one in validities} == {day}
        assert client_key.opened(section(wrapped(data))).ends == day


@pytest.fixture
def library() -> ctypes.CDLL:
    """The library that the interpreter has loaded, as the product and `ssl` use it."""
    return ctypes.CDLL("libcrypto.so.3", os.RTLD_NOLOAD | os.RTLD_NOW)


@pytest.mark.needs("openssl")
def test_no_failure_stays_in_the_queue_of_errors(pem: Path, library: ctypes.CDLL) -> None:
    """Where `ssl` would take it for its own."""
    library.ERR_peek_error.restype = ctypes.c_ulong
    data = exported(pem, "OpenSSL 1.1")
    for broken, password in ((data, "another"), (data[:-100], PASSWORD), (b"", "")):
        with pytest.raises(libcrypto.CryptoError):
            libcrypto.open_pkcs12(broken, password.encode())
        assert library.ERR_peek_error() == 0
    key, _ = libcrypto.open_pkcs12(made(ed25519.Ed25519PrivateKey.generate()), PASSWORD.encode())
    assert key is not None
    with pytest.raises(libcrypto.CryptoError):
        key.sign(b"text")
    assert library.ERR_peek_error() == 0


@pytest.mark.needs("openssl")
def test_the_old_ciphers_are_not_for_tls(pem: Path, library: ctypes.CDLL) -> None:
    """What a file may be encrypted with is known while that is opened, and in that thread."""
    library.EVP_CIPHER_fetch.restype = ctypes.c_void_p
    for _ in range(2):
        key, _ = libcrypto.open_pkcs12(exported(pem, "RC2-40"), PASSWORD.encode())
        assert key is not None
        assert library.EVP_CIPHER_fetch(None, b"RC2-40-CBC", None) is None
        library.ERR_clear_error()


@pytest.mark.needs("openssl")
def test_a_key_is_freed_once(pem: Path) -> None:
    key, _ = libcrypto.open_pkcs12(exported(pem, "AES-256"), PASSWORD.encode())
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(key)


@pytest.mark.parametrize(("loaded", "said"), [(True, ["CryptoError", "1"]), (False, ["OSError", "0"])])
def test_it_is_the_library_of_the_interpreter(loaded: bool, said: list[str]) -> None:
    """One that is not loaded is not searched for, wherever a path would lead."""
    code = (
        "import sys, types\n"
        f"if not {loaded}: sys.modules['_ssl'] = types.ModuleType('_ssl')\n"
        "import cryptpilot_boot.system.libcrypto as libcrypto\n"
        "try: libcrypto.open_pkcs12(b'', b'')\n"
        "except (OSError, libcrypto.CryptoError) as error: print(type(error).__name__)\n"
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'libcrypto' in line}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == said


_FUZZ = """
import random, sys
from cryptpilot_boot.system import libcrypto
path, seed, count, password = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
data, chance, opened = open(path, "rb").read(), random.Random(seed), 0
# how often a password is stretched: some of the changed numbers would take hours
rounds = [at for at in range(len(data)) if data[at:at + 4] == bytes.fromhex("02020800")]
fixed = {at + offset for at in rounds for offset in range(-1, 5)}
free = [at for at in range(len(data)) if at not in fixed]

def changed():
    way = chance.randrange(4)
    if way == 0:
        return data[:chance.randrange(len(data))]
    new = bytearray(data)
    if way == 1:
        for _ in range(chance.randrange(1, 4)):
            new[chance.choice(free)] = chance.randrange(256)
    elif way == 2:
        new[chance.choice(free)] ^= 1 << chance.randrange(8)
    else:
        at = chance.choice([at for at in free if at > 40])
        new[at:at + chance.randrange(1, 30)] = chance.randbytes(chance.randrange(30))
    return bytes(new)

for _ in range(count):
    try:
        key, validities = libcrypto.open_pkcs12(changed(), password)
    except libcrypto.CryptoError:
        continue
    opened += 1
    if key:
        key.is_rsa and key.sign(b"text")
print("survived", opened)
"""


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", ["OpenSSL 1.1", "AES-256", "no MAC", "all in the clear"])
def test_no_changed_file_brings_the_process_down(python: Path, pem: Path, tmp_path: Path, kind: str) -> None:
    """Without a MAC, which tells most changes at once, the changes get to the parts within."""
    data = exported(pem, kind)
    (tmp_path / "file").write_bytes(data)
    command: list[str | Path] = [python, "-X", "faulthandler", "-c", _FUZZ, tmp_path / "file", "1", "400", PASSWORD]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("survived")

"""Keys and certificates for the stand-in gateway: a private CA, a server certificate, a client key.

The three things a user gets from the console for a real instance come from here in the same form: the
client key (JSON around a PKCS#12), its password, and the CA certificates of the instance (root and
intermediate).
"""

from __future__ import annotations

import base64
import ipaddress
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Authority:
    """A private CA: a root, and the intermediate that signs."""

    root: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)  # the intermediate's; the root's has done its work

    @property
    def pem(self) -> str:
        """The chain as the console hands it out: both certificates in one PEM text."""
        return (self.root.public_bytes(Encoding.PEM) + self.intermediate.public_bytes(Encoding.PEM)).decode()


@dataclass(frozen=True)
class ServerCertificate:
    """What the server shows, and its key; both PEM."""

    pem: str
    key_pem: str = field(repr=False)


@dataclass(frozen=True)
class ClientKey:
    """A client key of an application access point, as downloaded: JSON text and password."""

    key_id: str
    text: str = field(repr=False)
    password: str = field(repr=False)

    def private_key(self) -> rsa.RSAPrivateKey:
        """Open the PKCS#12."""
        return _open_archive(json.loads(self.text)["PrivateKeyData"], self.password)


@dataclass(frozen=True)
class Pki:
    """What server and client share: the CA, and the client key the gateway knows."""

    authority: Authority
    client_key: ClientKey


def make_pki() -> Pki:
    """Make a new CA and client key."""
    return Pki(authority=make_authority(), client_key=make_client_key())


def parse_client_key(text: str, password: str) -> ClientKey:
    """Take a client key back from the two texts that a user has of it."""
    return ClientKey(key_id=str(json.loads(text)["KeyId"]), text=text, password=password)


def old_client_key() -> ClientKey:
    """Return a client key as OpenSSL 1.1 wrote them by default: RC2 with 40 bits, and 3DES.

    It was made by `openssl pkcs12 -export -legacy`, for nothing but tests; `cryptography` reads the form, but does not
    write it.
    """
    return parse_client_key(Path(__file__).with_name("old_client_key.json").read_text(), "stand-in")


def make_authority(name: str = "KMS stand-in") -> Authority:
    """Make a root and an intermediate with names of their own."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    root_name = _name(f"{name} root {secrets.token_hex(4)}")
    root = _sign(_authority_builder(root_name, root_name, root_key, root_key, path_length=1), root_key)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name} intermediate {secrets.token_hex(4)}")
    intermediate = _sign(_authority_builder(subject, root_name, key, root_key, path_length=0), root_key)
    return Authority(root=root, intermediate=intermediate, key=key)


def make_server_certificate(
    authority: Authority,
    *,
    names: Sequence[str] = ("localhost",),
    addresses: Sequence[str] = ("127.0.0.1",),
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> ServerCertificate:
    """Make a server certificate for DNS names and IP addresses.

    An authority the client does not trust, a name it does not ask for, or dates (with a time zone) in the
    past make the certificate one that a client has to refuse. The intermediate is not part of the PEM: the
    user has it, and a client that reads only the first certificate of the user's file must be found out.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    builder = (
        _builder(_name("KMS stand-in gateway"), authority.intermediate.subject, key, authority.key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    certificate = _sign(builder, authority.key, not_before=not_before, not_after=not_after)
    return ServerCertificate(pem=certificate.public_bytes(Encoding.PEM).decode(), key_pem=private_pem(key))


def make_client_key(
    *,
    old_encryption: bool = False,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    certified: bool = True,
    of_another: bool = False,
    loose: bool = False,
) -> ClientKey:
    """Make a client key: RSA 2048 and a certificate in a PKCS#12 with a random password.

    not_before, not_after: the certificate's dates. certified: whether there is one. of_another: whether it is of
    another key. loose: whether the archive leaves open which certificate is the key's, as of one of another key.

    By default the PKCS#12 is encrypted as the installed `cryptography` thinks best (PBES2 with AES-256),
    which the unmodified SDK opens too. `old_encryption` is the form that every PKCS#12 reader has known
    since 1999, 3DES with SHA-1; which of the two the real console writes is not documented, so a client has
    to read both.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_id = f"KAAP.{secrets.token_hex(16)}"
    password = secrets.token_urlsafe(16)
    subject = _name(key_id)
    owner = rsa.generate_private_key(public_exponent=65537, key_size=2048) if of_another else key
    certificate = _sign(_builder(subject, subject, owner, owner), owner, not_before=not_before, not_after=not_after)
    archive = pkcs12.serialize_key_and_certificates(
        name=key_id.encode(),
        key=key,
        cert=certificate if certified and not (of_another or loose) else None,
        cas=[certificate] if certified and (of_another or loose) else None,
        encryption_algorithm=_archive_encryption(password, old=old_encryption),
    )
    text = json.dumps({"KeyId": key_id, "PrivateKeyData": base64.b64encode(archive).decode()})
    return ClientKey(key_id=key_id, text=text, password=password)


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Write a private key as unencrypted PKCS#8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache  # opening takes 35 ms, and a client opens it for each request it signs
def _open_archive(base64_text: str, password: str) -> rsa.RSAPrivateKey:
    key, _, _ = pkcs12.load_key_and_certificates(base64.b64decode(base64_text), password.encode())
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the client key holds no RSA key")
    return key


def _archive_encryption(password: str, *, old: bool) -> KeySerializationEncryption:
    if not old:
        return BestAvailableEncryption(password.encode())
    return (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2048)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - the point of the old form
        .build(password.encode())
    )


def _authority_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        _builder(subject, issuer, key, issuer_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> x509.CertificateBuilder:
    """Begin a certificate. Python 3.13 refuses chains that lack the two key identifiers."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> x509.Certificate:
    """Sign; valid from yesterday, for a machine under test with a slow clock, for ten years."""
    now = datetime.now(timezone.utc)
    return (
        builder.not_valid_before(not_before or now - timedelta(days=1))
        .not_valid_after(not_after or now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

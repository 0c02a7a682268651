"""A PKI kept in a directory, so that several runs of the program have one CA and one client key."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.kms.pki import Authority, Pki, make_pki, parse_client_key, private_pem

CA = "ca.pem"
CA_KEY = "ca_key.pem"
CLIENT_KEY = "client_key.json"
CLIENT_KEY_PASSWORD = "client_key_password"


def open_directory(directory: Path) -> Pki:
    """Return the PKI in a directory, made on first use; two programs that start at once get the same."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not (directory / CA).exists():
            _write(directory, make_pki())
        return _read(directory)
    finally:
        os.close(descriptor)


def _write(directory: Path, pki: Pki) -> None:
    """Write the files; the one that says that all are there comes last."""
    _write_private(directory / CA_KEY, private_pem(pki.authority.key))
    _write_private(directory / CLIENT_KEY_PASSWORD, pki.client_key.password)
    _write_private(directory / CLIENT_KEY, pki.client_key.text)
    (directory / CA).write_text(pki.authority.pem)


def _write_private(path: Path, text: str) -> None:
    """Write a file that is never readable for others."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _read(directory: Path) -> Pki:
    root, intermediate = x509.load_pem_x509_certificates((directory / CA).read_bytes())
    key = load_pem_private_key((directory / CA_KEY).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{directory / CA_KEY} holds no EC key")
    client_key = parse_client_key((directory / CLIENT_KEY).read_text(), (directory / CLIENT_KEY_PASSWORD).read_text())
    return Pki(authority=Authority(root=root, intermediate=intermediate, key=key), client_key=client_key)

"""The public CAs that the system trusts, for programs that carry none of their own."""

from __future__ import annotations

from pathlib import Path

from cryptpilot_boot.errors import KeyFetchError

# Where distributions keep all of them in one file: Debian and Ubuntu; Alibaba Cloud Linux, Anolis, Red Hat and Fedora;
# the same, where only the tools' own place is there; SUSE.
_PLACES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/ssl/ca-bundle.pem"),
)


def store() -> Path:
    """Return the PEM file with the CAs. Raises KeyFetchError when there is none."""
    for path in _PLACES:
        if path.is_file():
            return path
    raise KeyFetchError(
        "this system has no store of public CAs, so the certificate of KMS cannot be checked",
        "install the package ca-certificates, or set kms_cert_pem to the CA that is to be trusted",
    )

"""The CAs that are trusted: those of a configuration, or the public ones of the system, as programs carry none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import KeyFetchError

if TYPE_CHECKING:
    import ssl

# Where distributions keep all of them in one file: Debian and Ubuntu; Alibaba Cloud Linux, Anolis, Red Hat and Fedora;
# the same, where only the tools' own place is there; SUSE.
PLACES: tuple[Path, ...] = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/ssl/ca-bundle.pem"),
)


def trusting(pem: str, hint: str) -> ssl.SSLContext:
    """Return a TLS context that trusts these CAs alone; what is wrong with them is not to be blamed on a gateway.

    hint: what to do then. Raises KeyFetchError when they cannot be read, as TLS would read them.
    """
    import ssl  # here, for the commands that only ask for the store start without it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: not ASCII
        raise KeyFetchError("kms_cert_pem cannot be read as certificates", hint) from None
    return context


def store() -> Path:
    """Return the PEM file with the CAs. Raises KeyFetchError without one."""
    for path in PLACES:
        if path.is_file():
            return path
    raise KeyFetchError(
        "this system has no CA bundle, so no certificate can be verified",
        "install the package ca-certificates, or set kms_cert_pem to the trusted CA (for a KBS: kbs_root_cert)",
    )

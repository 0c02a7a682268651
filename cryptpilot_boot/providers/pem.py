"""Certificates in PEM: read strictly, and written in the form that every library reads.

What copying does to a file, and is unambiguous, is repaired: a byte-order mark, text outside of the blocks, indented or
joined lines, other line ends or their escapes (backslash, n), a single certificate without its BEGIN and END lines. All
else is an error that names the certificate.

Sources: RFC 7468, "Textual Encodings of PKIX, PKCS, and CMS Structures"; RFC 5280, 4.1; X.690, 8.1.3 and 10.1.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = 64  # characters of base64; RFC 7468, 2
_BOUNDARY = re.compile(r"-----(BEGIN|END) ([A-Z0-9]+(?: [A-Z0-9]+)*)-----")
# A boundary that lost dashes or letters: its block would be taken for a comment.
_DAMAGED = re.compile(r"-\s*(?:BEGIN|END)\s[^\n-]*CERTIFICATE|\b(?:BEGIN|END)\s[^\n-]*CERTIFICATE\s*-")
# A boundary that was retyped or changed: lower case, other dashes or none.
_LIKE_BOUNDARY = re.compile(r"\b(?:BEGIN|END)\W{1,3}(?:X509\W)?CERTIFICATE\b", re.IGNORECASE)
# The first line of a certificate in base64, whose boundaries are missing.
_LIKE_BODY = re.compile(r"\bMII[A-Za-z0-9+/]{40}")
_CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
# Blocks that are mistaken for certificates. Keys: parts of their labels.
_OTHERS = (
    ("TRUSTED CERTIFICATE", "a TRUSTED CERTIFICATE, which only OpenSSL reads: openssl x509 -in FILE writes the other"),
    ("CERTIFICATE REQUEST", "a certificate request, and not the certificate that was issued for it"),
    ("PRIVATE KEY", "a private key, which does not belong here: remove it"),
    ("PKCS7", "a PKCS#7 container: openssl pkcs7 -print_certs -in FILE writes its certificates"),
    ("CMS", "a CMS container, and no certificate"),
    ("PUBLIC KEY", "a public key, and no certificate"),
    ("CRL", "a list of revoked certificates, and no certificate"),
)

_INTEGER, _BIT_STRING, _OBJECT_ID, _SEQUENCE, _VERSION = 0x02, 0x03, 0x06, 0x30, 0xA0  # DER tags
_LONG = 0x80  # of a DER length: the other bits say how many bytes it has


class Unreadable(Exception):
    """The text holds no certificates, or other data besides them; the message says which."""


def complaint(text: str) -> str:
    """Return why a text cannot be read as certificates, "" if it can. Quotes nothing of it."""
    try:
        _certificates(text)
    except Unreadable as error:
        return str(error)
    return ""


def canonical(text: str) -> str:
    """Return the certificates of a text, each in the form of RFC 7468. Raises Unreadable."""
    return "".join(_write(certificate) for certificate in _certificates(text))


def _write(certificate: bytes) -> str:
    body = base64.b64encode(certificate).decode()
    lines = [body[place : place + _LINE] for place in range(0, len(body), _LINE)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def _certificates(text: str) -> list[bytes]:
    """Return the DER of each certificate."""
    # an escape of JSON or a shell that was not decoded; a backslash has no other meaning in PEM
    lines = text.replace("\\r", "").replace("\\n", "\n")
    if not _BOUNDARY.search(lines) and not _DAMAGED.search(lines):
        return [_unlabelled(lines)]
    found = [_decode(body, f"certificate {number}") for number, body in enumerate(_bodies(lines), 1)]
    if not found:
        raise Unreadable("it holds no certificate")
    return found


def _bodies(text: str) -> Iterator[str]:
    """Yield the text between the boundaries of each certificate."""
    number, label, start = 1, "", 0
    for boundary in _BOUNDARY.finditer(text):
        between = text[start : boundary.start()]
        if boundary[1] == "BEGIN":
            if label:
                raise Unreadable(f"certificate {number} has no END CERTIFICATE line")
            _require_comment(between, number)
            label = _require_certificate(boundary[2], number)
        else:
            if label != boundary[2]:
                raise Unreadable(f"certificate {number} has {_half(label)}")
            yield between
            number, label = number + 1, ""
        start = boundary.end()
    if label:
        raise Unreadable(f"certificate {number} has no END CERTIFICATE line: the text is cut off")
    _require_comment(text[start:], number)


def _half(label: str) -> str:
    return "another END line than its BEGIN line" if label else "an END line and no BEGIN CERTIFICATE line"


def _require_certificate(label: str, number: int) -> str:
    if label in _CERTIFICATE:
        return label
    other = next((what for part, what in _OTHERS if part in label), "a PEM block of another kind, and no certificate")
    raise Unreadable(f"block {number} is {other}")


def _require_comment(text: str, number: int) -> None:
    if _DAMAGED.search(text) or _LIKE_BOUNDARY.search(text):
        raise Unreadable(
            f"the BEGIN or END line of certificate {number} is damaged: five dashes (U+002D) stand at both its ends"
        )
    if _LIKE_BODY.search(text):
        raise Unreadable(f"certificate {number} has no BEGIN CERTIFICATE and END CERTIFICATE lines")


def _unlabelled(text: str) -> bytes:
    """Return the certificate that a text without a BEGIN line holds in base64."""
    try:
        return _decode(text.strip("\ufeff"), "it")
    except Unreadable:
        raise Unreadable("it has no BEGIN CERTIFICATE and END CERTIFICATE lines") from None


def _decode(body: str, which: str) -> bytes:
    """Return the DER of a body in base64."""
    letters = "".join(body.split())
    if not letters:
        raise Unreadable(f"{which} is empty")
    if len(set(letters)) == 1:
        raise Unreadable(f"{which} is a placeholder: put the content of the file in its place")
    odd = re.search(r"[^A-Za-z0-9+/=]", letters)
    if odd:
        line = body[: body.index(odd[0])].lstrip().count("\n") + 1
        raise Unreadable(f"{which} is not base64: U+{ord(odd[0]):04X} in line {line} below its BEGIN line")
    try:
        der = base64.b64decode(letters, validate=True)
    except binascii.Error:
        raise Unreadable(f"{which} is not base64: characters are missing, or too many") from None
    _require_der(der, which)
    return der


def _require_der(der: bytes, which: str) -> None:
    """Raise Unreadable unless the outer elements are those of one certificate. TLS checks the rest."""
    try:
        tag, start, end = _element(der, 0)
        inner = [_element(der, start)]
        while inner[-1][2] < min(end, len(der)):
            inner.append(_element(der, inner[-1][2]))
        first = _element(der, inner[0][1])[0] if inner[0][0] == _SEQUENCE else None
    except IndexError:
        raise Unreadable(f"{which} is cut off, or no certificate") from None
    if tag != _SEQUENCE:
        raise Unreadable(f"{which} is no certificate")
    if end > len(der):
        raise Unreadable(f"{which} is cut off: it has {len(der)} of {end} bytes")
    if end < len(der):
        raise Unreadable(f"{which} has {len(der) - end} bytes too many at its end")
    tags = [tag for tag, _, _ in inner]
    if tags != [_SEQUENCE, _SEQUENCE, _BIT_STRING] or inner[-1][2] != end or first not in (_VERSION, _INTEGER):
        raise Unreadable(f"{which} is {_MISTAKEN.get(tags[0], 'no certificate')}")


_MISTAKEN = {_INTEGER: "a private key, and no certificate", _OBJECT_ID: "a PKCS#7 container, and no certificate"}


def _element(der: bytes, place: int) -> tuple[int, int, int]:
    """Return the tag of a DER element, and where its content begins and ends. Raises IndexError after the end."""
    tag, length = der[place], der[place + 1]
    start = place + 2
    if length >= _LONG:
        count = length - _LONG
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start > len(der):
        raise IndexError
    return tag, start, start + length

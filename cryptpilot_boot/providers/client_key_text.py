"""The two files of a client key in a configuration: `clientKey_****.json`, and its password."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

_PARTS = ("KeyId", "PrivateKeyData")
# It becomes a header of a request, and must not contain what ends a header.
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BOM = "\ufeff"


def complaint(text: str) -> str:
    """Return why a text is no client key, "" if it is one. Quotes nothing of it.

    The provider tries the password.
    """
    try:
        key = _parse(text)
    except json.JSONDecodeError as error:
        # the only message that is compared: a complete value is followed by more text
        joined = error.msg == "Extra data"
        return "it holds more than one JSON object" if joined else "it is not JSON, or not all of it"
    except (ValueError, RecursionError):
        return "it is not JSON"
    if not isinstance(key, dict) or not all(isinstance(key.get(part), str) and key[part].strip() for part in _PARTS):
        return 'it has no "KeyId" and "PrivateKeyData"'
    if not _KEY_ID.fullmatch(key["KeyId"].strip()):
        return "its KeyId is no name of a client key"
    data = "".join(key["PrivateKeyData"].split())
    if len(set(data)) == 1:
        return "its PrivateKeyData is a placeholder: put the content of the file in its place"
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "its PrivateKeyData is not base64: characters are missing, or too many"
    return ""


def canonical(text: str) -> str:
    """Return a client key without what copying added: a byte-order mark, and line breaks within values."""
    key = _parse(text)
    return json.dumps({part: "".join(key[part].split()) for part in _PARTS})


def _parse(text: str) -> Any:
    # not strict: mail programs and terminals break long lines, which puts line breaks into strings
    return json.loads(text.strip(_BOM + " \t\r\n"), strict=False)


def password_complaint(text: str) -> str:
    """Return why a text is no password, "" if it is one."""
    password = canonical_password(text)
    if not password.strip():
        return "must not be empty"
    return "" if password.isprintable() else "must be one line without control characters"


def canonical_password(text: str) -> str:
    """Return a password without the byte-order mark and the line ends of the file that it was in."""
    return text.strip(_BOM + "\r\n")

"""Checks for the keys of `[encrypt.kbs]`: each returns the complaint, "" for none."""

from __future__ import annotations

import re

from cryptpilot_boot import names
from cryptpilot_boot.providers import pem

# These become parts of a command line, or of the configuration of the guest components: no other characters.
_HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?"
_PORT = re.compile(r"[a-z]+://(?:\[[^]]*\]|[^/:]*):([0-9]+)")
_URL = re.compile(rf"https?://{_HOST}(?:/[A-Za-z0-9._~/-]{{0,200}})?")
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}"
_URI = re.compile(rf"kbs://(?:{_HOST})?/{_SEGMENT}/{_SEGMENT}/{_SEGMENT}")
_SOCKET = re.compile(r"unix://(?P<path>/[A-Za-z0-9._/-]+)")
_LONGEST_SOCKET = 107  # bytes, unix(7)


def url(text: str) -> str:
    """Check the address of a KBS."""
    if _URL.fullmatch(text):
        return _port(text)
    return f'must be the URL of a KBS, such as "https://kbs.example.com:8080"{names.holds(text, blank=True)}'


def uri(text: str) -> str:
    """Check the name of a resource."""
    if _URI.fullmatch(text):
        return _port(text)
    must = 'must be "kbs:///<repository>/<type>/<tag>", of letters, digits and _-.'
    return f"{must}{names.holds(text, blank=True)}"


def _port(text: str) -> str:
    found = _PORT.match(text)
    return "must have a port between 1 and 65535" if found and not 0 < int(found[1]) < 65536 else ""


def certificates(text: str) -> str:
    """Check the only trusted CA. Never quotes it."""
    complaint = pem.complaint(text)
    return f"must be PEM: {complaint}" if complaint else ""


def socket(text: str) -> str:
    """Check the socket of the daemon."""
    found = _SOCKET.fullmatch(text)
    if not found or ".." in found["path"].split("/"):
        return 'must be "unix://" and an absolute path, such as "unix:///run/confidential-containers/cdh.sock"'
    return "" if len(found["path"]) <= _LONGEST_SOCKET else f"must have a path of at most {_LONGEST_SOCKET} bytes"

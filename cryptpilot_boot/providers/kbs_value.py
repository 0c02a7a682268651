"""A resource of a KBS as a passphrase, whatever way it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.passphrase import Passphrase, is_key_material

if TYPE_CHECKING:
    from cryptpilot_boot.providers.kbs_errors import Resource

LONGEST = 1 << 20
"""Bytes of a resource. cryptsetup accepts longer keys, but no key is as long as this."""
LONGEST_TRY = 30.0
"""Seconds for a try: making evidence takes some, and the guest components retry by themselves."""
_STORE = "store random bytes, such as: head -c 64 /dev/urandom"


def passphrase(secret: bytes | memoryview, resource: Resource) -> Passphrase:
    """Return a resource as it is, byte for byte. Raises KeyFetchError if it is empty or too long."""
    if not len(secret):
        raise KeyFetchError(f"the resource {resource.key_uri} is empty", _STORE)
    if len(secret) > LONGEST:
        raise too_long(resource)
    return Passphrase(secret, strong=is_key_material(secret))


def too_long(resource: Resource) -> KeyFetchError:
    """Return the error for a resource that is too long for a key."""
    return KeyFetchError(f"the resource {resource.key_uri} is longer than {LONGEST >> 20} MiB: it is no key", _STORE)

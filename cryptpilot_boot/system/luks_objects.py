"""The objects of a LUKS2 header's JSON, each checked separately: the allowed values of a segment, a key slot, a digest.

Source: LUKS2 On-Disk Format Specification, version 1.1; cryptsetup 2.3 to 2.8 for what it writes by default.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Callable

CIPHER = "aes-xts-plain64"
SECTOR_SIZES = (512, 4096)
"""Bytes. 512 is the default of cryptsetup before 2.4."""

# Bytes of a volume key: of AES-256 in XTS, and of that with HMAC-SHA256. By whether there is integrity.
VOLUME_KEY = {False: 64, True: 96}
_AREA_KEY = 64  # bytes: that a key slot is encrypted with
_STRIPES = 4000
_HASHES = {"sha256": 32, "sha512": 64}  # bytes of a digest; systemd-cryptenroll takes sha512 for its key slots
# Bytes of a digest, of whatever hash, that was a LUKS1 header's (LUKS_DIGESTSIZE): cryptsetup convert takes it over.
# That no other volume key fits it takes 160 bits.
_CONVERTED = 20
_SALT = 32  # bytes
BLOCK = 4096  # bytes: places in a header are multiples of it
SECTOR = 512
# What deriving a key may cost. cryptsetup chooses what takes 2 s on the machine it runs on, and at least the first.
_PBKDF2_ITERATIONS = (1_000, 20_000_000)
_ARGON2_MEMORY = (32, 1 << 20)  # KiB
_ARGON2_PASSES = (4, 1 << 16)
_ARGON2_CPUS = (1, 4)
_ARGON2_COST = 64 << 20  # KiB, passed over once
_RESILIENCE = ("checksum", "journal", "none")
AT_WORK = "in-reencryption"
BACKUPS = ("backup-previous", "backup-final")
_DIGITS = 20  # of a number of 64 bits


class Unlisted(Exception):
    """A header says what is not on the list. The text names the place and holds nothing of the header's own."""


Objects = dict[str, dict[str, Any]]
"""Checked ones, by their numbers."""


def flag(checked: Mapping[str, Any]) -> str:
    """Return the flag of a segment that was checked, "" for one that holds data."""
    return checked["flags"][0] if "flags" in checked else ""


def segment(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segment, checked by itself."""
    what = "a data segment"
    checked = _fields(what, found, _SEGMENT)
    if checked["size"] != "dynamic":
        whole, rest = divmod(number(checked["size"]), checked["sector_size"])
        require(whole > 0 and rest == 0, f"{what} is not made of whole sectors")
    flags = listed(found.get("flags", []))
    require(len(flags) <= 1 and {*flags} <= {AT_WORK, *BACKUPS}, f"{what} has flags that no volume has")
    if "integrity" in found:
        checked["integrity"] = _fields("the integrity of a data segment", found["integrity"], _INTEGRITY)
        if "key_size" in found["integrity"]:  # cryptsetup 2.8
            _fields("the integrity of a data segment", found["integrity"], {"key_size": _only(32)})
    return {**checked, "flags": flags} if flags else checked


def slot(found: Mapping[str, Any], volume_key: int) -> dict[str, Any]:
    """Return a key slot, checked by itself. volume_key: the size of the key that it must hold, in bytes."""
    if found["type"] == "reencrypt":
        return _reencryption_slot(found)
    what = "a key slot"
    checked = _fields(what, found, {"type": _only("luks2"), "key_size": _only(volume_key)})
    kdf = found["kdf"]
    derivation = _fields("the key derivation of a key slot", kdf, _PBKDF2 if kdf["type"] == "pbkdf2" else _ARGON2)
    if derivation.get("time", 0) * derivation.get("memory", 0) > _ARGON2_COST:
        raise Unlisted("the key derivation of a key slot takes longer than any that cryptsetup chooses")
    area = _fields("the place of a key slot", found["area"], _AREA)
    size = -(-volume_key * _STRIPES // BLOCK) * BLOCK
    require(area["size"] == str(size), "the area of a key slot does not have the size of its key")
    return {**checked, "af": _fields("the splitting of a key slot", found["af"], _AF), "area": area, "kdf": derivation}


def _reencryption_slot(found: Mapping[str, Any]) -> dict[str, Any]:
    what = "the key slot of a reencryption"
    area = _fields(what, found["area"], _REENCRYPTION_AREA)
    if area["type"] == "checksum":
        area |= _fields(what, found["area"], _CHECKSUM_AREA)
    return {**_fields(what, found, _REENCRYPTION_SLOT), "area": area}


def digest(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a digest of a volume key, checked by itself."""
    checked = _fields("a digest", found, _DIGEST)
    length = len(base64.b64decode(checked["digest"]))
    require(length in (_HASHES[checked["hash"]], _CONVERTED), "a digest does not have the length of its hash")
    return checked


# Of each object, by the name of a member: what returns its value, checked, and raises Unlisted for any other.
Check = Callable[[Any], Any]


def _only(*allowed: object) -> Check:
    def check_value(value: Any) -> Any:
        # 1 == True, and 4000.0 == 4000: the type counts
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise Unlisted(f"is not {' or '.join(map(str, allowed))}")
        return value

    return check_value


def _between(least: int, most: int) -> Check:
    def check_value(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Unlisted(f"is not between {least} and {most}")
        return value

    return check_value


def _bytes(*lengths: int) -> Check:
    def check_value(value: Any) -> str:
        try:
            length = len(base64.b64decode(_text(value).encode("ascii"), validate=True))
        except (binascii.Error, UnicodeEncodeError):
            length = -1
        if length not in lengths:
            raise Unlisted(f"is not {' or '.join(map(str, lengths))} bytes in base64")
        return str(value)

    return check_value


def _place(value: Any) -> str:
    return _multiple(value, BLOCK)


def _sectors(value: Any) -> str:
    return _multiple(value, SECTOR)


def _multiple(value: Any, of: int) -> str:
    found = number(value)
    if found % of:
        raise Unlisted(f"is not a multiple of {of}")
    return str(found)


def _tweak(value: Any) -> str:
    return str(number(value))


def _extent(value: Any) -> str:
    return "dynamic" if value == "dynamic" else _sectors(value)


def names(value: Any) -> list[str]:
    """Read a list of numbers, as the format has them, and write each as cryptsetup does."""
    return [str(number(name)) for name in listed(value)]


_AF: dict[str, Check] = {"type": _only("luks1"), "stripes": _only(_STRIPES), "hash": _only(*_HASHES)}
_AREA: dict[str, Check] = {
    "type": _only("raw"),
    "offset": _place,
    "size": _place,
    "encryption": _only(CIPHER),
    "key_size": _only(_AREA_KEY),
}
_PBKDF2: dict[str, Check] = {
    "type": _only("pbkdf2"),
    "hash": _only(*_HASHES),
    "iterations": _between(*_PBKDF2_ITERATIONS),
    "salt": _bytes(_SALT),
}
_ARGON2: dict[str, Check] = {
    "type": _only("argon2i", "argon2id"),
    "time": _between(*_ARGON2_PASSES),
    "memory": _between(*_ARGON2_MEMORY),
    "cpus": _between(*_ARGON2_CPUS),
    "salt": _bytes(_SALT),
}
_DIGEST: dict[str, Check] = {
    "type": _only("pbkdf2"),
    "keyslots": names,
    "segments": names,
    **{name: _PBKDF2[name] for name in ("hash", "iterations", "salt")},
    "digest": _bytes(*_HASHES.values(), _CONVERTED),
}
_SEGMENT: dict[str, Check] = {
    "type": _only("crypt"),
    "offset": _sectors,
    "size": _extent,
    "iv_tweak": _tweak,
    "encryption": _only(CIPHER),
    "sector_size": _only(*SECTOR_SIZES),
}
_INTEGRITY: dict[str, Check] = {
    "type": _only("hmac(sha256)"),
    "journal_encryption": _only("none"),
    "journal_integrity": _only("none"),
}
_REENCRYPTION_SLOT: dict[str, Check] = {
    "type": _only("reencrypt"),
    "key_size": _only(1),
    "mode": _only("reencrypt"),
    "direction": _only("forward", "backward"),
    "priority": _only(0),
}
_REENCRYPTION_AREA: dict[str, Check] = {"type": _only(*_RESILIENCE), "offset": _place, "size": _place}
_CHECKSUM_AREA: dict[str, Check] = {"hash": _only(*_HASHES), "sector_size": _only(*SECTOR_SIZES)}


def _fields(what: str, found: Mapping[str, Any], listed: Mapping[str, Check]) -> dict[str, Any]:
    """Return the members of an object that are listed, checked; the others are left behind."""
    if not isinstance(found, dict):
        raise TypeError
    checked = {}
    for name, check_value in listed.items():
        if name not in found:
            raise Unlisted(f"{what} has no {name}")
        try:
            checked[name] = check_value(found[name])
        except Unlisted as error:
            raise Unlisted(f"{what}: {name} {error}") from None
    return checked


def require(held: bool, reason: str) -> None:
    """Raise Unlisted with a reason unless something holds."""
    if not held:
        raise Unlisted(reason)


def listed(value: object) -> list[str]:
    """Read a list of texts."""
    if not isinstance(value, list):
        raise TypeError
    return [_text(one) for one in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def number(value: object) -> int:
    """Read a number as the format has them: in a string, as JSON's own are not good for 64 bits."""
    text = _text(value)
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ValueError
    return int(text)

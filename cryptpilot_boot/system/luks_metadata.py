"""What may stand in a LUKS2 header's JSON: an allow list, and the JSON that cryptsetup is given in its place.

The disk is the host's to write. So a header is taken only if everything in it that matters is what `cryptpilot init`
writes, or what a program wrote that works on our volumes: another version of cryptpilot, cryptsetup's luksAddKey and
reencrypt, systemd-cryptenroll. Its values are checked here, and the JSON is written again from them: what is not named
here reaches no other reader.

Sources: LUKS2 On-Disk Format Specification, version 1.1; cryptsetup 2.3 to 2.8 for what it writes by default.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

CIPHER = "aes-xts-plain64"
SECTOR_SIZES = (512, 4096)
"""Bytes. 512 is what cryptsetup before 2.4 takes by itself."""

# Bytes of a volume key: of AES-256 in XTS, and of that with HMAC-SHA256. By whether there is integrity.
_VOLUME_KEY = {False: 64, True: 96}
_AREA_KEY = 64  # bytes: that a key slot is encrypted with
_STRIPES = 4000
_HASHES = {"sha256": 32, "sha512": 64}  # bytes of a digest; systemd-cryptenroll takes sha512 for its key slots
_SALT = 32  # bytes
_BLOCK = 4096  # bytes: places in a header are multiples of it
_MOST_SLOTS = 32
_MOST_SEGMENTS = 8
_SLOTS = 128 << 20  # bytes: the most that all key slots may take
_FURTHEST = 1 << 30  # bytes: no data begin beyond; cryptsetup leaves 16 MiB
_SECTOR_BYTES = 512
# What deriving a key may cost. cryptsetup chooses what takes 2 s on the machine it runs on, and at least the first.
_PBKDF2_ITERATIONS = (1_000, 10_000_000)
_ARGON2_MEMORY = (32, 1 << 20)  # KiB
_ARGON2_PASSES = (4, 1 << 16)
_ARGON2_CPUS = (1, 4)
_ARGON2_COST = 64 << 20  # KiB, passed over once
_REENCRYPTION = "online-reencrypt-v2"
"""The requirement by which cryptsetup (2.3.7, 2.4.3 and newer) proves with the volume keys what a header says of it."""
_RESILIENCE = ("checksum", "journal", "none")
_AT_WORK = "in-reencryption"
_BACKUPS = ("backup-previous", "backup-final")
_DIGITS = 20  # of a number of 64 bits
_RECOVERY = "systemd-recovery"  # the token by which systemd-cryptenroll too knows the slots of recovery keys
_MAC = "cryptpilot_mac"
# Flags that a volume may have been opened with for good; see cryptsetup(8), --persistent.
_FLAGS = (
    *("allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus", "no-journal"),
    *("no-read-workqueue", "no-write-workqueue"),
)


class Unlisted(Exception):
    """A header says what is not on the list. The text names the place and holds nothing of the header's own."""


class Unfinished(Exception):
    """All is as it should be, but a reencryption was cut short in the middle of a step."""


@dataclasses.dataclass(frozen=True)
class Area:
    """Where a key slot is, in bytes from the header's beginning."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Recovery:
    """A token that says that key slots take recovery keys: the disk's word and no more, unless `mac` proves it.

    slots: the numbers of those that there are. mac: in hexadecimal, "" for none; see volume.recovery.
    """

    number: int
    slots: frozenset[int]
    mac: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a header says, checked.

    uuid: what the header is called. json: what cryptsetup is given. salts: by the number of a key slot, what its key is
    derived with. areas: where the key slots are. data: bytes before the data. room: bytes a device must have for the
    header and the data. integrity: whether the data are authenticated. volume_keys: digests, with their salts, of the
    keys that the data are encrypted with. layout: the segments, to compare. reencrypting: whether a reencryption is to
    be finished. ignored: flags that are not carried over. recovery: the tokens of recovery keys.
    """

    uuid: str
    json: dict[str, Any]
    salts: dict[int, str]
    areas: tuple[Area, ...]
    data: int
    room: int
    integrity: bool
    volume_keys: frozenset[str]
    layout: str
    reencrypting: bool
    ignored: tuple[str, ...]
    recovery: tuple[Recovery, ...]

    @property
    def recovery_slots(self) -> set[int]:
        """Numbers of the key slots that, by the disk's word, take recovery keys."""
        return {slot for token in self.recovery for slot in token.slots}


def check(found: Mapping[str, Any], size: int, uuid: str) -> Facts:
    """Return what a header's JSON says.

    uuid: of the header, which is no part of the JSON. size: bytes of one copy of the metadata. Raises Unlisted when it
    says anything that no header of ours does; Unfinished; and AttributeError, KeyError, TypeError or ValueError when it
    is no header's JSON at all.
    """
    config = found["config"]
    begin = 2 * size
    room = _number(config["keyslots_size"])
    _require(room <= _SLOTS and room % _BLOCK == 0, "the room for key slots is not a header's")
    requirements = _requirements(config)
    reencrypting = requirements == [_REENCRYPTION]
    _require(not requirements or reencrypting, "it requires what no volume of cryptpilot does")
    segments = {name: _segment(segment) for name, segment in found["segments"].items()}
    _require_numbers(segments, _MOST_SEGMENTS, "data segments")
    integrity = _lay_out(segments, reencrypting=reencrypting)
    first = min(_number(segment["offset"]) for segment in segments.values())
    _require(begin + room <= first <= _FURTHEST, "the data do not begin behind a header")
    slots = {name: _slot(slot, _VOLUME_KEY[integrity]) for name, slot in found["keyslots"].items()}
    _require_numbers(slots, _MOST_SLOTS, "key slots")
    areas = _areas(slots, begin, begin + room)
    digests = {name: _digest(digest) for name, digest in found["digests"].items()}
    _require_numbers(digests, _MOST_SLOTS, "digests")
    _link(digests, slots, segments, reencrypting=reencrypting)
    if any(_flag(one) == _AT_WORK for one in segments.values()):
        raise Unfinished
    salts = {int(name): slot["kdf"]["salt"] for name, slot in slots.items() if slot["type"] == "luks2"}
    return Facts(
        uuid=uuid,
        salts=salts,
        json={
            "keyslots": slots,
            "tokens": {},
            "segments": segments,
            "digests": digests,
            "config": {
                "json_size": str(size - _BLOCK),
                "keyslots_size": str(room),
                **({"requirements": {"mandatory": requirements}} if requirements else {}),
            },
        },
        areas=areas,
        data=first,
        room=max(_number(one["offset"]) + _least(one) for one in segments.values()),
        integrity=integrity,
        volume_keys=frozenset(f"{one['salt']} {one['digest']}" for one in digests.values() if one["segments"]),
        layout=json.dumps(segments, sort_keys=True),
        reencrypting=reencrypting,
        ignored=tuple(flag for flag in _FLAGS if flag in _listed(config.get("flags", []))),
        recovery=tuple(_recovery(found.get("tokens"), salts)),
    )


def recovery_token(slot: int, mac: str) -> dict[str, object]:
    """Return the token that says that a key slot takes a recovery key. mac: what proves it, "" for nothing."""
    return {"type": _RECOVERY, "keyslots": [str(slot)], **({_MAC: mac} if mac else {})}


def _requirements(config: Mapping[str, Any]) -> list[str]:
    requirements = config.get("requirements", {})
    if not isinstance(requirements, dict):
        raise TypeError
    _require(requirements.keys() <= {"mandatory"}, "it requires what no volume of cryptpilot does")
    return _listed(requirements.get("mandatory", []))


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
    return _multiple(value, _BLOCK)


def _sectors(value: Any) -> str:
    return _multiple(value, _SECTOR_BYTES)


def _multiple(value: Any, of: int) -> str:
    number = _number(value)
    if number % of:
        raise Unlisted(f"is not a multiple of {of}")
    return str(number)


def _tweak(value: Any) -> str:
    return str(_number(value))


def _extent(value: Any) -> str:
    return "dynamic" if value == "dynamic" else _sectors(value)


def _names(value: Any) -> list[str]:
    return [str(_number(name)) for name in _listed(value)]


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
    "keyslots": _names,
    "segments": _names,
    **{name: _PBKDF2[name] for name in ("hash", "iterations", "salt")},
    "digest": _bytes(*_HASHES.values()),
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


def _segment(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segment, checked by itself."""
    what = "a data segment"
    segment = _fields(what, found, _SEGMENT)
    if segment["size"] != "dynamic":
        whole, rest = divmod(_number(segment["size"]), segment["sector_size"])
        _require(whole > 0 and rest == 0, f"{what} is not made of whole sectors")
    flags = _listed(found.get("flags", []))
    _require(len(flags) <= 1 and {*flags} <= {_AT_WORK, *_BACKUPS}, f"{what} has flags that no volume has")
    if "integrity" in found:
        segment["integrity"] = _fields("the integrity of a data segment", found["integrity"], _INTEGRITY)
        if "key_size" in found["integrity"]:  # cryptsetup 2.8
            _fields("the integrity of a data segment", found["integrity"], {"key_size": _only(32)})
    return {**segment, "flags": flags} if flags else segment


Objects = dict[str, dict[str, Any]]
"""Checked ones, by their numbers."""


def _flag(segment: Mapping[str, Any]) -> str:
    return segment["flags"][0] if "flags" in segment else ""


def _lay_out(segments: Objects, *, reencrypting: bool) -> bool:
    """Require that segments lie one behind the other; tell whether they are authenticated.

    A volume has one. While it is reencrypted it has two, for the two keys, and between them a third where a step is at
    work; and two more that say what the reencryption began with and leads to.
    """
    backups = sorted(_flag(one) for one in segments.values() if _flag(one) in _BACKUPS)
    expected = sorted(_BACKUPS) if reencrypting else []
    _require(backups == expected, "it does not say what its reencryption began with and leads to")
    parts = [segments[name] for name in sorted(segments, key=int) if _flag(segments[name]) not in _BACKUPS]
    _require(1 <= len(parts) <= (3 if reencrypting else 1), "its data segments are more or fewer than a volume has")
    place = begin = _number(parts[0]["offset"])
    for part in parts:
        _require(
            _number(part["offset"]) == place and _number(part["iv_tweak"]) == (place - begin) // _SECTOR_BYTES,
            "a data segment does not begin where the one before it ends",
        )
        _require(part["size"] != "dynamic" or part is parts[-1], "a data segment has no end")
        place += _least(part)
    integrity = any("integrity" in one for one in segments.values())
    _require(not (integrity and reencrypting), "it names a reencryption of data with integrity, which there is not")
    _require(_flag(parts[0]) == "" or reencrypting, "it holds a step of a reencryption that it does not name")
    return integrity


def _least(segment: Mapping[str, Any]) -> int:
    """Return the bytes of a data segment; of one that takes what there is, the least that can be."""
    return _SECTOR_BYTES if segment["size"] == "dynamic" else _number(segment["size"])


def _slot(found: Mapping[str, Any], volume_key: int) -> dict[str, Any]:
    """Return a key slot, checked by itself. volume_key: the size of the key that it must hold, in bytes."""
    if found["type"] == "reencrypt":
        return _reencryption_slot(found)
    what = "a key slot"
    slot = _fields(what, found, {"type": _only("luks2"), "key_size": _only(volume_key)})
    kdf = found["kdf"]
    derivation = _fields("the key derivation of a key slot", kdf, _PBKDF2 if kdf["type"] == "pbkdf2" else _ARGON2)
    if derivation.get("time", 0) * derivation.get("memory", 0) > _ARGON2_COST:
        raise Unlisted("the key derivation of a key slot takes longer than any that cryptsetup chooses")
    area = _fields("the place of a key slot", found["area"], _AREA)
    size = -(-volume_key * _STRIPES // _BLOCK) * _BLOCK
    _require(area["size"] == str(size), "the place of a key slot has not the size of its key")
    return {**slot, "af": _fields("the splitting of a key slot", found["af"], _AF), "area": area, "kdf": derivation}


def _reencryption_slot(found: Mapping[str, Any]) -> dict[str, Any]:
    what = "the key slot of a reencryption"
    area = _fields(what, found["area"], _REENCRYPTION_AREA)
    if area["type"] == "checksum":
        area |= _fields(what, found["area"], _CHECKSUM_AREA)
    return {**_fields(what, found, _REENCRYPTION_SLOT), "area": area}


def _areas(slots: Objects, begin: int, end: int) -> tuple[Area, ...]:
    """Return where key slots are, once it is known that none lies over another, nor over the metadata.

    What a reencryption keeps beside is not among them: no reader needs it unless a step was cut short.
    """
    areas = {name: Area(_number(slot["area"]["offset"]), _number(slot["area"]["size"])) for name, slot in slots.items()}
    free = begin
    for area in sorted(areas.values(), key=lambda one: one.offset):
        _require(area.offset >= free and area.size > 0, "a key slot lies over something else")
        free = area.offset + area.size
        _require(free <= end, "a key slot lies outside of the room for key slots")
    return tuple(area for name, area in areas.items() if slots[name]["type"] == "luks2")


def _digest(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a digest of a volume key, checked by itself."""
    digest = _fields("a digest", found, _DIGEST)
    length = len(base64.b64decode(digest["digest"]))
    _require(length == _HASHES[digest["hash"]], "a digest is not as long as its hash makes it")
    return digest


def _link(digests: Objects, slots: Objects, segments: Objects, *, reencrypting: bool) -> None:
    """Require that every key slot and every segment belongs to one volume key, and that there are no other keys.

    While a reencryption goes on there are two keys, of which each opens what a step works on; and a third digest, by
    which cryptsetup proves what the header says of the reencryption.
    """
    wrong = "its key slots and data segments do not belong together"
    keys = [one for one in digests.values() if one["segments"]]
    proofs = [one["keyslots"] for one in digests.values() if not one["segments"]]
    special = [[name] for name, slot in slots.items() if slot["type"] == "reencrypt"]
    _require(proofs == special and len(special) == (1 if reencrypting else 0), wrong)
    _require(len(keys) == (2 if reencrypting else 1) and all(one["keyslots"] for one in keys), wrong)
    named = sorted(name for one in digests.values() for name in one["keyslots"])
    _require(named == sorted(slots), wrong)
    named = sorted(name for one in keys for name in one["segments"])
    expected = sorted(name for name, one in segments.items() for _ in range(2 if _flag(one) == _AT_WORK else 1))
    _require(named == expected, wrong)


def _recovery(tokens: object, slots: Collection[int]) -> Iterable[Recovery]:
    """Yield the tokens of recovery keys that make sense. cryptsetup is given none: the others matter to no reader."""
    for number, token in tokens.items() if isinstance(tokens, dict) else ():
        if not isinstance(token, dict) or token.get("type") != _RECOVERY:
            continue
        try:
            named = {int(name) for name in _names(token.get("keyslots"))}
            place = _number(number)
        except (TypeError, ValueError):
            continue
        mac = token.get(_MAC)
        proof = mac if isinstance(mac, str) and re.fullmatch("[0-9a-f]{64}", mac) else ""
        yield Recovery(place, frozenset(named & set(slots)), proof)


def _require(held: bool, reason: str) -> None:
    if not held:
        raise Unlisted(reason)


def _require_numbers(names: Collection[str], most: int, what: str) -> None:
    """Require that what is named by numbers is there, and that each is written as cryptsetup writes it."""
    _require(bool(names), f"it has no {what}")
    for name in names:
        _require(str(_number(name)) == name and int(name) < most, f"its {what} are not numbered as they are")


def _listed(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    return [_text(one) for one in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    """Read a number as the format has them: in a string, as JSON's own are not good for 64 bits."""
    text = _text(value)
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ValueError
    return int(text)

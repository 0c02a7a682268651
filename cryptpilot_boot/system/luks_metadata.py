"""What may stand in a LUKS2 header's JSON: an allow list, and the JSON that cryptsetup is given in its place.

The disk is the host's to write. So a header is accepted only if all its values that matter are those of
`cryptpilot init`, or of a program that works on our volumes: another version of cryptpilot, cryptsetup's luksAddKey and
reencrypt, systemd-cryptenroll. Its values are checked, and the JSON is written again from them: what is not on the list
reaches no other reader. system.luks_objects checks each object separately, this module checks that they fit together.
Tokens are read by modules of their own, and are not written again.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.system import luks_objects as objects
from cryptpilot_boot.system import recovery_tokens, tpm2_token

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cryptpilot_boot.system.luks_objects import Objects

_MOST_SLOTS = 32
_MOST_SEGMENTS = 8
_SLOTS = 128 << 20  # bytes: the most that all key slots may take
_FURTHEST = 1 << 30  # bytes: no data begin beyond; cryptsetup leaves 16 MiB
_REENCRYPTION = "online-reencrypt-v2"
"""The requirement by which cryptsetup (2.3.7, 2.4.3 and newer) proves with the volume keys what a header says of it."""
# Flags that a volume may have been opened with for good; see cryptsetup(8), --persistent.
_FLAGS = (
    *("allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus", "no-journal"),
    *("no-read-workqueue", "no-write-workqueue"),
)


class CutShort(Exception):
    """The header is valid, but a reencryption was interrupted in the middle of a step."""


@dataclasses.dataclass(frozen=True)
class Area:
    """Where a key slot is, in bytes from the header's beginning."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a header says, checked.

    uuid: what the header is called. json: what cryptsetup is given. salts: by the number of a key slot, what its key is
    derived with. areas: where the key slots are. data: bytes before the data. room: bytes a device must have for the
    header and the data. integrity: whether the data are authenticated. volume_keys: digests, with their salts, of the
    keys that the data are encrypted with. layout: the segments, to compare. reencrypting: whether a reencryption is
    unfinished. ignored: flags that are not carried over. passed_over: key slots that are not, each with the reason.
    recovery: the tokens of recovery keys. tpm2: those of keys that are sealed to a TPM. tpm2_unusable: why others of
    that kind are not among them.
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
    passed_over: tuple[tuple[int, str], ...]
    recovery: tuple[recovery_tokens.Recovery, ...]
    tpm2: tuple[tpm2_token.Token, ...]
    tpm2_unusable: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the header: two copies of the metadata, and the room for key slots."""
        config = self.json["config"]
        return 2 * (int(config["json_size"]) + objects.BLOCK) + int(config["keyslots_size"])

    @property
    def recovery_slots(self) -> set[int]:
        """Numbers of the key slots that, by the disk's word, take recovery keys."""
        return {slot for token in self.recovery for slot in token.slots}


def check(found: Mapping[str, Any], size: int, uuid: str) -> Facts:
    """Return what a header's JSON says.

    uuid: of the header, which is no part of the JSON. size: bytes of one copy of the metadata. Raises Unlisted if it
    has a value that no header of ours has; CutShort; and AttributeError, KeyError, TypeError or ValueError if it is not
    the JSON of a header at all.
    """
    config = found["config"]
    begin = 2 * size
    room = objects.number(config["keyslots_size"])
    objects.require(
        room <= _SLOTS and room % objects.BLOCK == 0, "the size of the key slot area is not that of a header"
    )
    requirements = _requirements(config)
    reencrypting = requirements == [_REENCRYPTION]
    objects.require(not requirements or reencrypting, "it requires a feature that no volume of cryptpilot has")
    segments = {name: objects.segment(segment) for name, segment in found["segments"].items()}
    _require_numbers(segments, _MOST_SEGMENTS, "data segments")
    integrity = _lay_out(segments, reencrypting=reencrypting)
    first = min(objects.number(segment["offset"]) for segment in segments.values())
    objects.require(begin + room <= first <= _FURTHEST, "the data do not begin after a header")
    slots, passed_over = _usable(found["keyslots"], objects.VOLUME_KEY[integrity])
    digests = {name: objects.digest(digest) for name, digest in found["digests"].items()}
    _require_numbers(digests, _MOST_SLOTS, "digests")
    slots, digests = _of_the_data(slots, digests, {*passed_over})
    _require_numbers(slots, _MOST_SLOTS, "key slots")
    areas = _areas(slots, begin, begin + room)
    _link(digests, slots, segments, reencrypting=reencrypting)
    if any(objects.flag(one) == objects.AT_WORK for one in segments.values()):
        raise CutShort
    tokens = found.get("tokens")
    salts = {int(name): slot["kdf"]["salt"] for name, slot in slots.items() if slot["type"] == "luks2"}
    sealed = list(tpm2_token.found(tokens, salts))
    return Facts(
        uuid=uuid,
        salts=salts,
        json={
            "keyslots": slots,
            "tokens": {},
            "segments": segments,
            "digests": digests,
            "config": {
                "json_size": str(size - objects.BLOCK),
                "keyslots_size": str(room),
                **({"requirements": {"mandatory": requirements}} if requirements else {}),
            },
        },
        areas=areas,
        data=first,
        room=max(objects.number(one["offset"]) + _least(one) for one in segments.values()),
        integrity=integrity,
        volume_keys=frozenset(f"{one['salt']} {one['digest']}" for one in digests.values() if one["segments"]),
        layout=json.dumps(segments, sort_keys=True),
        reencrypting=reencrypting,
        ignored=tuple(flag for flag in _FLAGS if flag in objects.listed(config.get("flags", []))),
        passed_over=tuple((int(name), reason) for name, reason in passed_over.items()),
        recovery=tuple(recovery_tokens.found(tokens, salts)),
        tpm2=tuple(one for one in sealed if isinstance(one, tpm2_token.Token)),
        tpm2_unusable=tuple(one for one in sealed if isinstance(one, str)),
    )


def _usable(found: Mapping[str, Any], volume_key: int) -> tuple[Objects, dict[str, str]]:
    """Return the key slots that are on the list, and of the others the reasons.

    A key slot of another kind keeps no volume closed that another slot opens: the host can destroy a key slot anyway.
    Raises Unlisted when there is no other.
    """
    _require_numbers(found, _MOST_SLOTS, "key slots")
    slots, reasons = {}, {}
    for name, slot in found.items():
        try:
            slots[name] = objects.slot(slot, volume_key)
        except objects.Unlisted as error:
            reasons[name] = str(error)
    objects.require(bool(slots), next(iter(reasons.values()), ""))
    return slots, reasons


def _of_the_data(slots: Objects, digests: Objects, passed_over: Collection[str]) -> tuple[Objects, Objects]:
    """Leave out ignored key slots, and keys of no data with theirs.

    Of such a key nothing is opened. cryptsetup luksAddKey --unbound makes one, and so does the beginning of a
    reencryption, where a power cut may leave it.
    """
    kept = {}
    stray: set[str] = set()
    for name, one in digests.items():
        own = [slot for slot in one["keyslots"] if slot not in passed_over]
        if one["segments"] or any(slots.get(slot, {}).get("type") == "reencrypt" for slot in own):
            kept[name] = {**one, "keyslots": own}
        else:
            stray.update(own)
    used = {slot for one in kept.values() for slot in one["keyslots"]}
    return {name: slot for name, slot in slots.items() if name not in stray - used}, kept


def _requirements(config: Mapping[str, Any]) -> list[str]:
    requirements = config.get("requirements", {})
    if not isinstance(requirements, dict):
        raise TypeError
    objects.require(requirements.keys() <= {"mandatory"}, "it requires a feature that no volume of cryptpilot has")
    return objects.listed(requirements.get("mandatory", []))


def _lay_out(segments: Objects, *, reencrypting: bool) -> bool:
    """Require that segments lie one behind the other; tell whether they are authenticated.

    A volume has one. While it is reencrypted it has two, for the two keys, and between them a third where a step is at
    work; and two more that say what the reencryption began with and leads to.
    """
    backups = sorted(objects.flag(one) for one in segments.values() if objects.flag(one) in objects.BACKUPS)
    expected = sorted(objects.BACKUPS) if reencrypting else []
    objects.require(backups == expected, "it does not name the states before and after its reencryption")
    parts = [
        segments[name] for name in sorted(segments, key=int) if objects.flag(segments[name]) not in objects.BACKUPS
    ]
    objects.require(
        1 <= len(parts) <= (3 if reencrypting else 1), "it has more or fewer data segments than a volume has"
    )
    place = begin = objects.number(parts[0]["offset"])
    for part in parts:
        objects.require(
            objects.number(part["offset"]) == place
            and objects.number(part["iv_tweak"]) == (place - begin) // objects.SECTOR,
            "a data segment does not begin where the one before it ends",
        )
        objects.require(part["size"] != "dynamic" or part is parts[-1], "a data segment has no end")
        place += _least(part)
    integrity = any("integrity" in one for one in segments.values())
    objects.require(
        not (integrity and reencrypting), "it names a reencryption of data with integrity, which does not exist"
    )
    objects.require(
        objects.flag(parts[0]) == "" or reencrypting, "it holds a step of a reencryption that it does not name"
    )
    return integrity


def _least(segment: Mapping[str, Any]) -> int:
    """Return the bytes of a data segment; of one that takes what there is, the least that can be."""
    return objects.SECTOR if segment["size"] == "dynamic" else objects.number(segment["size"])


def _areas(slots: Objects, begin: int, end: int) -> tuple[Area, ...]:
    """Return where key slots are, once it is known that none lies over another, nor over the metadata.

    What a reencryption keeps beside is not among them: no reader needs it unless a step was cut short.
    """
    areas = {
        name: Area(objects.number(slot["area"]["offset"]), objects.number(slot["area"]["size"]))
        for name, slot in slots.items()
    }
    free = begin
    for area in sorted(areas.values(), key=lambda one: one.offset):
        objects.require(area.offset >= free and area.size > 0, "a key slot overlaps something else")
        free = area.offset + area.size
        objects.require(free <= end, "a key slot is outside of the key slot area")
    return tuple(area for name, area in areas.items() if slots[name]["type"] == "luks2")


def _link(digests: Objects, slots: Objects, segments: Objects, *, reencrypting: bool) -> None:
    """Require that every key slot and every segment belongs to one volume key, and that there are no other keys.

    While a reencryption goes on there are two keys, of which each opens what a step works on; and a third digest, by
    which cryptsetup proves what the header says of the reencryption.
    """
    wrong = "its key slots and data segments do not belong together"
    keys = [one for one in digests.values() if one["segments"]]
    proofs = [one["keyslots"] for one in digests.values() if not one["segments"]]
    special = [[name] for name, slot in slots.items() if slot["type"] == "reencrypt"]
    objects.require(proofs == special and len(special) == (1 if reencrypting else 0), wrong)
    objects.require(len(keys) == (2 if reencrypting else 1), wrong)
    if reencrypting and not all(one["keyslots"] for one in keys):
        raise CutShort  # cryptsetup removes the old key's slots before it says that it is done
    objects.require(bool(keys[0]["keyslots"]), wrong)
    named = sorted(name for one in digests.values() for name in one["keyslots"])
    objects.require(named == sorted(slots), wrong)
    named = sorted(name for one in keys for name in one["segments"])
    expected = sorted(
        name for name, one in segments.items() for _ in range(2 if objects.flag(one) == objects.AT_WORK else 1)
    )
    objects.require(named == expected, wrong)


def _require_numbers(names: Collection[str], most: int, what: str) -> None:
    """Require that what is named by numbers is there, and that each is written as cryptsetup writes it."""
    objects.require(bool(names), f"it has no {what}")
    for name in names:
        objects.require(
            str(objects.number(name)) == name and int(name) < most, f"its {what} are not numbered as they are"
        )

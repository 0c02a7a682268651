"""What may stand in the LUKS2 header of a device that is encrypted in place; an allow list, as system.luks_metadata is.

cryptsetup moves the data towards the end, from the end to the beginning: what was before `SHIFT` lies at the device's
end at first, what was behind it in its old place, and what is encrypted `SHIFT` bytes behind its old place. The header
is checked as the one it becomes: a key slot, a cipher or a digest that no volume has is no better while it is made.
Source: LUKS2 On-Disk Format Specification, version 1.1; cryptsetup 2.6, lib/luks2/luks2_reencrypt.c.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot.system import luks_header, luks_metadata, luks_objects
from cryptpilot_boot.system.luks_objects import number, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.system.luks_metadata import Facts

SHIFT = luks_header.SIZE
"""Bytes that the data move."""
TAKEN = 2 * SHIFT
"""Bytes at the end of a device that its content has to leave free."""
_REQUIREMENT = "online-reencrypt-v2"
_MOVED = "backup-moved-segment"
_BACKUPS = ("backup-previous", "backup-final", _MOVED)
_SLOT = {"type": "reencrypt", "key_size": 1, "mode": "encrypt", "direction": "backward", "priority": 0}
_WRONG = "its conversion was not started by cryptpilot"


def reader(size: int) -> Callable[[Mapping[str, Any], int, str], Facts]:
    """Return what checks the header of a device of `size` bytes: the argument `check` of `luks_header.copy_from`."""

    def check(found: Mapping[str, Any], metadata_size: int, uuid: str) -> Facts:
        return _check(found, metadata_size, uuid, size)

    return check


def _check(found: Mapping[str, Any], metadata_size: int, uuid: str, size: int) -> Facts:
    """Do what `luks_metadata.check` does; reencrypting: whether some data are to be encrypted yet.

    The JSON it returns is the one of the volume in the end, whatever is encrypted by now.
    """
    if not found["config"].get("requirements"):
        return luks_metadata.check(found, metadata_size, uuid)
    require(found["config"]["requirements"] == {"mandatory": [_REQUIREMENT]}, _WRONG)
    _require_slot(found)
    facts = luks_metadata.check(completed(found), metadata_size, uuid)
    require(facts.data == SHIFT, _WRONG)
    _require_layout(found["segments"], size)
    return dataclasses.replace(facts, reencrypting=True, layout=json.dumps(found["segments"], sort_keys=True))


def is_all_encrypted(facts: Facts) -> bool:
    """Tell whether a conversion that has not ended has nothing left to encrypt."""
    segments = json.loads(facts.layout)
    parts = [one for one in segments.values() if not set(_BACKUPS) & set(one.get("flags", ()))]
    return facts.reencrypting and [(one["type"], "flags" in one) for one in parts] == [("crypt", False)]


def completed(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header's JSON as it is once all is encrypted."""
    final, segment = _backup(found["segments"], "backup-final")
    return {
        **found,
        "keyslots": {name: slot for name, slot in found["keyslots"].items() if slot["type"] != "reencrypt"},
        "segments": {"0": {name: value for name, value in segment.items() if name != "flags"}},
        "digests": {
            name: {**digest, "segments": ["0"]}
            for name, digest in found["digests"].items()
            if final in digest["segments"]
        },
        "config": {name: value for name, value in found["config"].items() if name != "requirements"},
    }


def with_slots_of(
    found: Mapping[str, Any], more: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[int, tuple[int, int]]]:
    """Return a header's JSON with the key slots and tokens that one that was `completed` was given since.

    What a slot holds goes elsewhere: returned are, by its place there, its new place and its size, in bytes. Where a
    slot is matters not to what it holds.
    """
    slots = dict(found["keyslots"])
    digests = {name: dict(digest) for name, digest in found["digests"].items()}
    (key,) = (name for name, digest in more["digests"].items() if digest["segments"])
    added = [name for name in more["keyslots"] if name not in completed(found)["keyslots"]]
    taken = {*slots, *more["keyslots"]}
    for name in [name for name in added if name in slots]:  # the number is the reencryption's
        free = min({str(one) for one in range(len(taken) + 1)} - taken, key=int)
        taken.add(free)
        slots[free] = slots.pop(name)
        for digest in digests.values():
            digest["keyslots"] = [free if one == name else one for one in digest["keyslots"]]
    moved = {}
    for name in added:
        area = more["keyslots"][name]["area"]
        free_from = max(number(one["area"]["offset"]) + number(one["area"]["size"]) for one in slots.values())
        moved[number(area["offset"])] = (free_from, number(area["size"]))
        slots[name] = {**more["keyslots"][name], "area": {**area, "offset": str(free_from)}}
    digests[key]["keyslots"] = [*digests[key]["keyslots"], *added]
    return {**found, "keyslots": slots, "digests": digests, "tokens": more["tokens"]}, moved


def _require_slot(found: Mapping[str, Any]) -> None:
    """Require that there is one key slot for the encryption, of the kind that cryptpilot begins, and what proves it."""
    special = {name: slot for name, slot in found["keyslots"].items() if slot["type"] == "reencrypt"}
    require(len(special) == 1, _WRONG)
    ((name, slot),) = special.items()
    area = slot["area"]
    require({key: value for key, value in slot.items() if key != "area"} == _SLOT, _WRONG)
    require(area.keys() == {"type", "offset", "size", "shift_size"}, _WRONG)
    require((area["type"], area["shift_size"]) == ("datashift", str(SHIFT)), _WRONG)
    require(number(area["offset"]) % luks_objects.BLOCK == number(area["size"]) % luks_objects.BLOCK == 0, _WRONG)
    require(
        [digest["segments"] for digest in found["digests"].values() if name in digest["keyslots"]] == [[]]
        and all(digest["keyslots"] == [name] or name not in digest["keyslots"] for digest in found["digests"].values()),
        _WRONG,
    )


def _backup(segments: Mapping[str, Any], flag: str) -> tuple[str, dict[str, Any]]:
    named = [(name, segment) for name, segment in segments.items() if flag in segment.get("flags", ())]
    require(len(named) == 1, _WRONG)
    return named[0]


def _linear(offset: int, size: int) -> dict[str, Any]:
    return {"type": "linear", "offset": str(offset), "size": str(size)}


def _require_layout(segments: Mapping[str, Any], size: int) -> None:
    """Require that the segments cover all data of a device of `size` bytes, each once."""
    end = size - TAKEN
    moved = _linear(size - SHIFT, SHIFT)
    require(_backup(segments, _MOVED)[1] == {**moved, "flags": [_MOVED]}, _WRONG)
    require(_backup(segments, "backup-previous")[1] == {**_linear(0, end), "flags": ["backup-previous"]}, _WRONG)
    final = _backup(segments, "backup-final")[1]
    require((final["offset"], final["size"]) == (str(SHIFT), "dynamic"), _WRONG)
    ordered = sorted(segments, key=number)
    parts = [segments[name] for name in ordered if not set(_BACKUPS) & set(segments[name].get("flags", ()))]
    place = 0
    for part in parts:
        dynamic = part["size"] == "dynamic"
        length = end - place if dynamic else number(part["size"])
        require(length > 0 and (not dynamic or part is parts[-1]), _WRONG)
        if part["type"] == "linear":
            # not behind what is encrypted: it goes from the end to the beginning
            require(part == (moved if place == 0 else _linear(place, length)), _WRONG)
        else:
            flags = part.get("flags", [])
            require(flags in ([], [luks_objects.AT_WORK]), _WRONG)
            expected = {**final, "offset": str(place + SHIFT), "size": part["size"], "iv_tweak": str(place // 512)}
            require({**part, "flags": []} == {**expected, "flags": []}, _WRONG)
        place += length
    require(place == end, _WRONG)
    kinds = [part["type"] for part in parts]
    require(kinds == sorted(kinds, reverse=True), _WRONG)

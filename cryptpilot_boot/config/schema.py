"""The tables of each configuration file, with the type and check of each key."""

from __future__ import annotations

import dataclasses
import re

from cryptpilot_boot import names
from cryptpilot_boot.config import checked, fallbacks, source
from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.config.misplaced import KnownTable, require_in_place
from cryptpilot_boot.config.model import (
    FALLBACK_AFTER,
    FILE_SYSTEMS,
    SECTOR_SIZES,
    Boot,
    Fallback,
    Identity,
    Volume,
)
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers.fields import (
    BOOL,
    FALLBACKS,
    NUMBER,
    STRING,
    STRINGS,
    TABLE,
    TIMEOUT,
    Key,
    between,
    one_of,
)

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _sector_size(size: int) -> str:
    return "" if size in SECTOR_SIZES else f"must be {' or '.join(map(str, SECTOR_SIZES))} (bytes)"


def _uuid(text: str) -> str:
    return "" if UUID.fullmatch(text) else "must be a UUID, in lower case"


def _digests(texts: list[str]) -> str:
    if texts and all(_SHA256.fullmatch(text) for text in texts) and len(set(texts)) == len(texts):
        return ""
    return "must be one or more different SHA-256 digests, each 64 hexadecimal digits in lower case"


_GLOBAL = {"boot": Key(TABLE)}
_BOOT = {
    "verbose": Key(BOOL),
    "timeout": TIMEOUT,
    "late_after": Key(NUMBER, between(0, 3600)),
    "emergency_shell": Key(BOOL),
    "ask": Key(BOOL),
}
_VOLUME = {
    "volume": Key(STRING, names.volume, required=True),
    "dev": Key(STRING, names.device, required=True),
    "auto_open": Key(BOOL),
    "initrd": Key(BOOL),
    "required": Key(BOOL),
    "makefs": Key(STRING, one_of(FILE_SYSTEMS)),
    "integrity": Key(BOOL),
    "sector_size": Key(NUMBER, _sector_size),
    "discard": Key(BOOL),
    "encrypt": Key(source.KIND),
    "fallback": Key(FALLBACKS),
}
_IDENTITY = {
    "uuid": Key(STRING, _uuid),
    "volume_keys": Key(STRINGS, _digests, required=True),
}


_AFTER = {"after": Key(NUMBER, between(0, 3600))}
# The place of each key, to say where a misplaced one belongs. Keys: the name of the table, "" above the first.
_VOLUME_FILE: dict[str, KnownTable] = {
    "": KnownTable("the volume", _VOLUME),
    "encrypt": KnownTable("[encrypt]", source.ALL),
    **source.known_tables("encrypt"),
    "[fallback]": KnownTable("[[fallback]]", _AFTER),  # in brackets, which no table name has
}
# The keys of a single `[[fallback]]`.
_FALLBACK = {**_AFTER, **source.POSSIBLE[source.FALLBACK]}
_FALLBACK_FILE: dict[str, KnownTable] = {
    "": KnownTable("the volume", _VOLUME),
    "fallback": KnownTable("[[fallback]]", {**_AFTER, **source.ALL}),
    **source.known_tables("fallback"),
}
_GLOBAL_FILE: dict[str, KnownTable] = {
    "": KnownTable("global.toml", _GLOBAL),
    "boot": KnownTable("[boot] of global.toml", _BOOT),
}


def boot(document: Document) -> Boot:
    """Return the value of global.toml. Raises ConfigError."""
    require_in_place(document, _GLOBAL_FILE, _VOLUME_FILE)
    sections = checked.values(document, "", _GLOBAL, document.data)
    return Boot(**checked.values(document, "boot", _BOOT, sections.get("boot", {})))


def volume(document: Document) -> Volume:
    """Return the value of a file in volumes/. Raises ConfigError."""
    require_in_place(document, _VOLUME_FILE, _GLOBAL_FILE)
    values = checked.values(document, "", _VOLUME, document.data)
    if values.get("integrity") and values.get("discard"):
        raise ConfigError(
            f'{document.path}{line_of(document.text, "", "discard")}: "discard" cannot be true with integrity = true:'
            " a block that was discarded has no valid tag",
            'remove "discard"; or, on a volume that is still to be initialized, remove "integrity"',
        )
    values.pop("fallback", None)
    provider = source.read(document, source.ENCRYPT, values.pop("encrypt", {}), values["dev"])
    made = Volume(encrypt=provider, source=document.path, **values)
    return dataclasses.replace(made, fallbacks=_fallbacks(document, made))


def identity(document: Document) -> Identity:
    """Return the value of a file in identities/. Raises ConfigError."""
    values = checked.values(document, "", _IDENTITY, document.data)
    return Identity(values.get("uuid", ""), frozenset(values["volume_keys"]), document.path)


def _fallbacks(document: Document, one: Volume) -> tuple[Fallback, ...]:
    found: list[Fallback] = []
    for part in fallbacks.each(document):
        line = line_of(part.text, "", "fallback")
        if one.temporary:
            raise ConfigError(
                f"{part.path}{line}: [[fallback]] has no meaning for a temporary volume: its key is a new one at each"
                " open",
                "remove it; or, to keep what the volume holds, write another table than [encrypt.otp]",
            )
        data = part.data["fallback"]
        require_in_place(part, _FALLBACK_FILE, _GLOBAL_FILE)
        source.require_possible(part, source.FALLBACK, data)
        after = checked.values(part, source.FALLBACK, _FALLBACK, data).get("after", FALLBACK_AFTER)
        encrypt = source.read(part, source.FALLBACK, {name: data[name] for name in data if name not in _AFTER}, one.dev)
        fallbacks.require_different(part, line, encrypt, [one.encrypt, *(other.encrypt for other in found)])
        found.append(Fallback(encrypt, after))
    return tuple(found)

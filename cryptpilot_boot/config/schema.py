"""What may stand in a configuration file: one table a section, one check a key."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from cryptpilot_boot import names
from cryptpilot_boot.config import fallbacks
from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.config.misplaced import Section, require_in_place
from cryptpilot_boot.config.model import (
    FALLBACK_AFTER,
    FILE_SYSTEMS,
    SECTOR_SIZES,
    Boot,
    Encrypt,
    Fallback,
    Identity,
    Volume,
)
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table, together
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
    did_you_mean,
    one_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.providers.provider import Provider

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A key as TOML has it without quotes: any other that is not known is a slip, and what it says is nobody's business.
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")


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
    "encrypt": Key(TABLE, required=True),
    "fallback": Key(FALLBACKS),
}
_IDENTITY = {
    "uuid": Key(STRING, _uuid),
    "volume_keys": Key(STRINGS, _digests, required=True),
}


def _chooser(modes: Sequence[Provider]) -> dict[str, Key]:
    """Return the key by which a table says which of several providers it is; nothing where there is one."""
    chosen = dict(one.mode for one in modes if one.mode)
    values = tuple(one.mode[1] for one in modes if one.mode)
    return {name: Key(STRING, one_of(values)) for name in chosen}


def _keys_of(modes: Sequence[Provider]) -> dict[str, Key]:
    """Return all keys that a provider's table may have, whatever else is in it."""
    return {**_chooser(modes), **{name: key for one in modes for name, key in one.keys.items()}}


_PROVIDERS = {name: _keys_of(table.modes(name)) for name in table.names()}
_ENCRYPT = {name: Key(TABLE) for name in _PROVIDERS}
_PARTS = {one.name: Key(TABLE) for one in table.PROVIDERS if not (one.parts or one.one_time)}


def _sections(name: str, keys: Mapping[str, Key]) -> dict[str, Section]:
    """Return what may stand in a table, and in those below it."""
    below = {f"{name}.{key}": one.keys for key, one in keys.items() if one.keys}
    inner = {place: section for table_name, of in below.items() for place, section in _sections(table_name, of).items()}
    return {name: Section(f"[{name}]", keys), **inner}


def _source_sections(table_name: str) -> dict[str, Section]:
    """Return what may stand in the tables below `[encrypt]`, or below a `[[fallback]]`."""
    name = f"{table_name}.{together.PROVIDER.name}"
    tables = {f"{table_name}.{one}": keys for one, keys in _PROVIDERS.items()}
    tables |= {name: _PARTS, **{f"{name}.{part}": _PROVIDERS[part] for part in _PARTS}}
    return {place: section for one, keys in tables.items() for place, section in _sections(one, keys).items()}


_AFTER = {"after": Key(NUMBER, between(0, 3600))}
# Where each key stands, to tell where one belongs that stands elsewhere. By the name of the table, "" above the first.
_VOLUME_FILE: dict[str, Section] = {
    "": Section("the volume", _VOLUME),
    "encrypt": Section("[encrypt]", _ENCRYPT),
    **_source_sections("encrypt"),
    "[fallback]": Section("[[fallback]]", _AFTER),  # in two brackets, as no table is called: each is read by itself
}
# Of a single `[[fallback]]`.
_FALLBACK = {**_AFTER, **_ENCRYPT}
_FALLBACK_FILE: dict[str, Section] = {
    "": Section("the volume", _VOLUME),
    "fallback": Section("[[fallback]]", _FALLBACK),
    **_source_sections("fallback"),
}
_GLOBAL_FILE: dict[str, Section] = {
    "": Section("global.toml", _GLOBAL),
    "boot": Section("[boot] of global.toml", _BOOT),
}


def boot(document: Document) -> Boot:
    """Turn global.toml into its value."""
    require_in_place(document, _GLOBAL_FILE, _VOLUME_FILE)
    sections = _checked(document, "", _GLOBAL, document.data)
    return Boot(**_checked(document, "boot", _BOOT, sections.get("boot", {})))


def volume(document: Document) -> Volume:
    """Turn a file of volumes/ into its value."""
    require_in_place(document, _VOLUME_FILE, _GLOBAL_FILE)
    values = _checked(document, "", _VOLUME, document.data)
    if values.get("integrity") and values.get("discard"):
        raise ConfigError(
            f'{document.path}{line_of(document.text, "", "discard")}: "discard" cannot be true with integrity = true:'
            " a block that was discarded has no valid tag",
            'remove "discard"; or, on a volume that is still to be initialized, remove "integrity"',
        )
    values.pop("fallback", None)
    provider = _encrypt(document, "encrypt", values.pop("encrypt"), values["dev"])
    made = Volume(encrypt=provider, source=document.path, **values)
    return dataclasses.replace(made, fallbacks=_fallbacks(document, made))


def identity(document: Document) -> Identity:
    """Turn a file of identities/ into its value."""
    values = _checked(document, "", _IDENTITY, document.data)
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
        checked = _checked(part, "fallback", _FALLBACK, data)
        after = checked.pop("after", FALLBACK_AFTER)
        encrypt = _encrypt(part, "fallback", {name: data[name] for name in data if name in _ENCRYPT}, one.dev)
        if table.of(encrypt).one_time:
            raise ConfigError(
                f"{part.path}{line}: [fallback.{encrypt.provider}] gives another key at each open, which never opens"
                " what is there",
                "name a source that keeps a secret",
            )
        fallbacks.require_different(part, line, encrypt, [one.encrypt, *(other.encrypt for other in found)])
        found.append(Fallback(encrypt, after))
    return tuple(found)


def _encrypt(document: Document, table_name: str, data: dict[str, Any], dev: str) -> Encrypt:
    """Return the source that `[encrypt]` or a `[[fallback]]` holds. table_name: which of the two; dev: the device."""
    _checked(document, table_name, _ENCRYPT, data)
    if len(data) != 1:
        known = (one for one in table.names() if table_name == "encrypt" or not table.modes(one)[0].one_time)
        tables = ", ".join(f"[{table_name}.{name}]" for name in known)
        found = "none of them" if not data else f"{len(data)} of them"
        line = _line_of_table(document, table_name)
        raise ConfigError(f"{document.path}{line}: exactly one of {tables} is needed, found {found}")
    ((name, values),) = data.items()
    return _source(document, f"{table_name}.{name}", values, dev)


def _source(document: Document, section: str, values: Mapping[str, Any], dev: str, *, part: bool = False) -> Encrypt:
    """Turn a provider's table into its value.

    section: the table's name. dev: the volume's device. part: whether values of others are needed beside this one's.
    """
    name = section.rpartition(".")[2]
    provider = _mode(document, section, values, table.modes(name))
    if provider.parts:
        return _together(document, section, values, dev)
    chooser = _chooser(table.modes(name))
    checked = _checked(document, section, {**chooser, **provider.keys}, values)
    for key in chooser:
        checked.pop(key, None)
    if wrong := provider.complain(checked):
        where = f"{document.path}{line_of(document.text, section, wrong.key)}"
        raise ConfigError(f'{where}: "{section}.{wrong.key}" {wrong.what}', wrong.todo)
    if provider.on_device:
        checked |= {"dev": dev, "together": part}
    return provider.make(**checked)


def _together(document: Document, section: str, values: Mapping[str, Any], dev: str) -> together.Together:
    """Turn a table that is made of those of several providers into its value."""
    _checked(document, section, _PARTS, values)
    if wrong := together.complaint(list(values)):
        raise ConfigError(f"{document.path}{_line_of_table(document, section)}: [{section}] {wrong}")
    return together.Together(
        tuple(_source(document, f"{section}.{name}", values[name], dev, part=True) for name in sorted(values))
    )


def _mode(document: Document, section: str, values: Mapping[str, Any], modes: Sequence[Provider]) -> Provider:
    """Return which provider a table is of; raise ConfigError for a key that another one has, and it has not."""
    chooser = _chooser(modes)
    _checked(document, section, chooser, {name: value for name, value in values.items() if name in chooser})
    chosen = [one for one in modes if one.mode and values.get(one.mode[0]) == one.mode[1]]
    meant = chosen[0] if chosen else modes[0]
    for name in values:
        others = [one.mode for one in modes if one.mode and name in one.keys and name not in meant.keys]
        if others and meant.mode:
            key, value = meant.mode
            where = f"{document.path}{line_of(document.text, section, name)}"
            said = f'{key} = "{value}"' if chosen else f'{key} left out, which means "{value}"'
            raise ConfigError(
                f'{where}: "{section}.{name}" has no meaning with {said}',
                f'remove it, or set {others[0][0]} = "{others[0][1]}"',
            )
    return meant


def _line_of_table(document: Document, name: str) -> str:
    """Return ":LINE" of where a table begins, or ""; see `line_of`."""
    above, _, last = name.rpartition(".")
    return line_of(document.text, above, last) if name else ""


def _checked(document: Document, section: str, keys: Mapping[str, Key], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a section; raise ConfigError on the first thing in `data` that `keys` does not allow."""
    values = {}
    for name, value in data.items():
        where = f"{document.path}{line_of(document.text, section, name)}: "
        full = f"{section}.{name}" if section else name
        if name not in keys:
            kind = "table" if isinstance(value, dict) else "key"
            quoted = f' "{full}"' if _BARE_KEY.fullmatch(name) else ""
            known = f"known here: {', '.join(keys)}" if keys else "no key may stand here"
            raise ConfigError(f"{where}unknown {kind}{quoted}{did_you_mean(name, keys)}", known)
        key = keys[name]
        if not key.kind.holds(value):
            raise ConfigError(f'{where}"{full}" must be {key.kind.words}')
        if key.keys:
            _checked(document, full, key.keys, value)
        complaint = key.check(value)
        if complaint:
            raise ConfigError(f'{where}"{full}" {complaint}')
        values[name] = key.kind.make(value)
    for name, key in keys.items():
        if key.required and name not in data:
            line = _line_of_table(document, section)
            where = f" in [{section}]" if section else ""
            near = did_you_mean(name, [other for other in data if other not in keys and _BARE_KEY.fullmatch(other)])
            raise ConfigError(f'{document.path}{line}: missing key "{name}"{where}{near}')
    return values

"""The tables below `[encrypt]` and `[[fallback]]`: which key provider, and with which keys. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptpilot_boot.config import checked
from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.config.misplaced import KnownTable
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table, together
from cryptpilot_boot.providers.fields import STRING, TABLE, Key, TomlType, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptpilot_boot.providers.provider import Provider, Source

ENCRYPT, FALLBACK, TOGETHER = "encrypt", "fallback", together.PROVIDER.name
"""The tables that hold those of providers. TOGETHER is itself in one of the others."""


def _refusal(name: str, place: str) -> str:
    """Return why the table of a provider cannot be in a table, "" if it can. place: ENCRYPT, FALLBACK or TOGETHER."""
    provider = table.modes(name)[0]
    if provider.one_time and place != ENCRYPT:
        return "gives another key at each open, which never opens what is there"
    if provider.parts and place == TOGETHER:
        return "has no meaning: a volume has one table of this kind, which holds those of all its values"
    return ""


def _chooser(modes: Sequence[Provider]) -> dict[str, Key]:
    """Return the key by which a table selects one of several providers; {} for a single provider."""
    chosen = dict(one.mode for one in modes if one.mode)
    words = tuple(one.mode[1] for one in modes if one.mode)
    return {name: Key(STRING, one_of(words)) for name in chosen}


def _keys_of(modes: Sequence[Provider]) -> dict[str, Key]:
    """Return all keys that a table may have, with every provider that it can select."""
    return {**_chooser(modes), **{name: key for one in modes for name, key in one.keys.items()}}


KEYS = {name: _keys_of(table.modes(name)) for name in table.names()}
"""All keys of each provider's table, by its name."""
ALL = {name: Key(TABLE) for name in KEYS}
"""The tables of all providers."""
POSSIBLE = {
    place: {name: Key(TABLE) for name in KEYS if not _refusal(name, place)} for place in (ENCRYPT, FALLBACK, TOGETHER)
}
"""The tables that each of the three tables may hold."""
KIND = TomlType(f"one of the tables {', '.join(f'[{ENCRYPT}.{name}]' for name in KEYS)}", TABLE.holds)
"""What `encrypt` is in a volume's file."""


def known_tables(name: str) -> dict[str, KnownTable]:
    """Return the keys of all tables below `[encrypt]` or a `[[fallback]]`. name: ENCRYPT or FALLBACK."""
    combined = f"{name}.{TOGETHER}"
    tables = {f"{name}.{one}": keys for one, keys in KEYS.items()}
    tables |= {combined: ALL, **{f"{combined}.{part}": KEYS[part] for part in POSSIBLE[TOGETHER]}}
    return {place: known for one, keys in tables.items() for place, known in _known_tables(one, keys).items()}


def _known_tables(name: str, keys: Mapping[str, Key]) -> dict[str, KnownTable]:
    """Return the keys of a table, and of those below it."""
    below = {f"{name}.{key}": one.keys for key, one in keys.items() if one.keys}
    inner = {place: known for table_name, of in below.items() for place, known in _known_tables(table_name, of).items()}
    return {name: KnownTable(f"[{name}]", keys), **inner}


def require_possible(document: Document, section: str, data: Mapping[str, Any]) -> None:
    """Raise ConfigError for the table of a provider that cannot be in this one. section: the name of this one."""
    place = section.rpartition(".")[2]
    for name in data:
        if why := _refusal(name, place) if name in KEYS else "":
            where = f"{document.path}{line_of(document.text, section, name)}"
            raise ConfigError(f"{where}: [{section}.{name}] {why}", f"possible here: {_tables(section)}")


def _tables(section: str) -> str:
    """List the tables that can be in a table."""
    return ", ".join(f"[{section}.{name}]" for name in POSSIBLE[section.rpartition(".")[2]])


def read(document: Document, section: str, data: Mapping[str, Any], dev: str) -> Source:
    """Return the source that a table holds.

    section: ENCRYPT or FALLBACK. data: the tables below it. dev: the device of the volume. Raises ConfigError.
    """
    checked.values(document, section, POSSIBLE[section], data)
    if len(data) != 1:
        found = f"{len(data)} of them" if data else "none of them"
        raise ConfigError(
            f"{document.path}{checked.line_of_table(document, section)}: exactly one of {_tables(section)} is needed,"
            f" found {found}",
            _SEVERAL.format(section) if data else _NONE[section],
        )
    ((name, values),) = data.items()
    return _source(document, f"{section}.{name}", values, dev)


# What to do in a table without any.
_NONE = {
    ENCRYPT: "add the table of the provider that keeps the volume's key; for a temporary volume: [encrypt.otp]",
    FALLBACK: "add the table of the provider that keeps the key, or remove this [[fallback]]",
}
_SEVERAL = (
    "keep one; write each further source into a [[fallback]] of its own, and values that are needed together into"
    " [{}.together]"
)


def _source(document: Document, section: str, data: Mapping[str, Any], dev: str, *, part: bool = False) -> Source:
    """Turn the table of a provider into its value. part: whether it is one of several values that are needed."""
    name = section.rpartition(".")[2]
    provider = _mode(document, section, data, table.modes(name))
    if provider.parts:
        return _together(document, section, data, dev)
    chooser = _chooser(table.modes(name))
    values = checked.values(document, section, {**chooser, **provider.keys}, data)
    for key in chooser:
        values.pop(key, None)
    if wrong := provider.complain(values):
        where = f"{document.path}{line_of(document.text, section, wrong.key)}"
        raise ConfigError(f'{where}: "{section}.{wrong.key}" {wrong.what}', wrong.todo)
    if provider.on_device:
        values |= {"dev": dev, "together": part}
    return provider.make(**values)


def _together(document: Document, section: str, data: Mapping[str, Any], dev: str) -> together.Together:
    """Turn a table that holds those of several providers into its value."""
    require_possible(document, section, data)
    checked.values(document, section, POSSIBLE[TOGETHER], data)
    if wrong := together.complaint(list(data)):
        where = f"{document.path}{checked.line_of_table(document, section)}"
        raise ConfigError(f"{where}: [{section}] {wrong}", f"possible here: {_tables(section)}")
    return together.Together(
        tuple(_source(document, f"{section}.{name}", data[name], dev, part=True) for name in sorted(data))
    )


def _mode(document: Document, section: str, data: Mapping[str, Any], modes: Sequence[Provider]) -> Provider:
    """Return the provider that a table selects. Raises ConfigError for a key that only another one has."""
    chooser = _chooser(modes)
    checked.values(document, section, chooser, {name: value for name, value in data.items() if name in chooser})
    chosen = [one for one in modes if one.mode and data.get(one.mode[0]) == one.mode[1]]
    meant = chosen[0] if chosen else modes[0]
    for name in data:
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

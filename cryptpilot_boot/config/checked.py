"""The keys of one table of a file, each compared with what is allowed there. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers.fields import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.providers.fields import Key

# A key that TOML takes without quotes. Only such a name is quoted in an error: any other may hold a secret.
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")


def values(document: Document, section: str, keys: Mapping[str, Key], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a table.

    section: the name of the table, "" above the first one. keys: what is allowed in it. Raises ConfigError for the
    first key that is unknown, has a wrong value, or is missing.
    """
    found = {}
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
            values(document, full, key.keys, value)
        complaint = key.check(value)
        if complaint:
            raise ConfigError(f'{where}"{full}" {complaint}')
        found[name] = key.kind.make(value)
    for name, key in keys.items():
        if key.required and name not in data:
            line = line_of_table(document, section)
            where = f" in [{section}]" if section else ""
            raise ConfigError(f'{document.path}{line}: missing key "{name}"{where}')
    return found


def line_of_table(document: Document, name: str) -> str:
    """Return ":LINE" of the line that begins a table, or ""; see `line_of`."""
    above, _, last = name.rpartition(".")
    return line_of(document.text, above, last) if name else ""

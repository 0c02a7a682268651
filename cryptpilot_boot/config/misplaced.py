"""Known keys in the wrong place: below the line of another table, or in another file."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.config.document import Document, line_of
from cryptpilot_boot.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class KnownTable:
    """A table, and the keys that it may have. what: the owner of the keys, in words."""

    what: str
    keys: Collection[str]


def require_in_place(document: Document, here: Mapping[str, KnownTable], elsewhere: Mapping[str, KnownTable]) -> None:
    """Raise ConfigError for a key that belongs in another table of the file, or in another file.

    here, elsewhere: the keys that may be in this file and in the other one, by table. Unknown keys, and keys of unknown
    tables, are skipped.
    """
    for table, name, value in _keys(document.data, here):
        if name in here[table].keys:
            continue
        full = f"{table}.{name}" if table else name
        kind = "table" if isinstance(value, dict) else "key"
        where = f"{document.path}{line_of(document.text, table, name)}"
        # several tables may have the key: prefer one that is in the file
        own = sorted(here.items(), key=lambda place: _table(document, place[0]) is None)
        places = [*own, *((None, known) for known in elsewhere.values())]
        exact = [(home, known, name) for home, known in places if name in known.keys]
        near = [(home, known, _near(name, known.keys, here[table].keys)) for home, known in places]
        for home, known, word in [*exact, *near]:
            if word:
                raise ConfigError(
                    f'{where}: unknown {kind} "{full}": {word} is a {kind} of {known.what}',
                    _OTHER_FILE if home is None else _move(document, here, home, table, word, kind),
                )


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")


def _near(name: str, known: Collection[str], here: Collection[str]) -> str:
    """Return the key of another table that a name misspells; "" for none, or if it misspells a key of this table."""
    if not _BARE_KEY.fullmatch(name) or nearest(name, here):
        return ""
    return nearest(name.lower().replace("-", "_"), known)


_HEADER = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_.]+)\s*\]")
_OTHER_FILE = "settings go in global.toml, and each volume in a file of its own in volumes/"


def _keys(data: Mapping[str, Any], tables: Mapping[str, KnownTable], table: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the keys of known tables: the table, the name and the value of each."""
    for name, value in data.items():
        yield table, name, value
        inner = f"{table}.{name}" if table else name
        if isinstance(value, dict) and inner in tables:
            yield from _keys(value, tables, inner)


def _move(document: Document, here: Mapping[str, KnownTable], home: str, table: str, name: str, kind: str) -> str:
    """Return how to move a key from one table of a file to another."""
    if kind == "table":
        return f"write [{home}.{name}]" if home else f"write [{name}]"
    if not home:
        return f"move it above the line {_line(_first_table(document, here, table))}"
    if _table(document, home) is None:
        return f"it has a meaning only below a line {_line(home)}"
    return f"move it below the line {_line(home)}"


def _table(document: Document, name: str) -> dict[str, Any] | None:
    """Return a table of a file, None if the file has none of that name. name: "" for the keys above the first table."""
    value: Any = document.data
    for part in name.split(".") if name else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def _line(table: str) -> str:
    """Return the line that begins a table."""
    return f"[[{table}]]" if table == "fallback" else f"[{table}]"


def _first_table(document: Document, here: Mapping[str, KnownTable], table: str) -> str:
    """Return the name of the first table in the file: the keys above its line belong to no table."""
    headers = (_HEADER.match(line) for line in (document.whole or document.text).split("\n"))
    names = (header[1] for header in headers if header)
    return next((name for name in names if name.partition(".")[0] in here[""].keys), table)

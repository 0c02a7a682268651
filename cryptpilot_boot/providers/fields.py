"""The keys of a table in a configuration file: their types and checks. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

Check = Callable[[Any], str]
"""Returns the complaint about a value, "" for none. It is read after the name of the key: "must be ..."."""


def anything(_: object) -> str:
    """Accept every value."""
    return ""


def one_of(names: Collection[str]) -> Check:
    """Return a check that accepts these names."""

    def check(name: str) -> str:
        return "" if name in names else f"must be one of {', '.join(names)}{did_you_mean(name, names)}"

    return check


def between(least: int, most: int) -> Check:
    """Return a check that accepts a number of seconds in a range."""

    def check(seconds: int) -> str:
        return "" if least <= seconds <= most else f"must be between {least} and {most} seconds"

    return check


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return what to add to a complaint about an unknown name; "" if no known name is similar."""
    near = nearest(name, known)
    return f' (did you mean "{near}"?)' if near else ""


@dataclasses.dataclass(frozen=True)
class TomlType:
    """A type of TOML values: its name in errors, a test of a value, and what a value becomes."""

    words: str
    holds: Callable[[object], bool]
    make: Callable[[Any], object] = lambda value: value


STRING = TomlType("a string", lambda value: isinstance(value, str))
STRINGS = TomlType(
    "a list of strings",
    lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    tuple,
)
BOOL = TomlType("true or false", lambda value: isinstance(value, bool))
# bool is a subclass of int, and is refused
NUMBER = TomlType("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
TABLE = TomlType("a table", lambda value: isinstance(value, dict))
FALLBACKS = TomlType(
    "a list of tables: write [[fallback]], and below it a table such as [fallback.exec]",
    lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
)


@dataclasses.dataclass(frozen=True)
class Key:
    """One key: its type, its check, and whether it is required. keys: the keys of a table."""

    kind: TomlType
    check: Check = anything
    required: bool = False
    keys: Mapping[str, Key] | None = None


TIMEOUT = Key(NUMBER, between(1, 3600))
"""A duration in seconds."""

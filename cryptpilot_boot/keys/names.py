"""What a source of a key is called for a user. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume


def named(volume: Volume, number: int) -> str:
    """Return the name of a source on the command line, and its provider."""
    source = volume.sources[number]
    return f"{volume.source_name(number)} ({table.of(source).describe(source)['provider']})"

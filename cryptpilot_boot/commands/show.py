"""`cryptpilot show`: the volumes and their states. Never touches the network, never needs a secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys
from cryptpilot_boot.commands import competing
from cryptpilot_boot.commands.select import notes, select
from cryptpilot_boot.providers.expiry import Level
from cryptpilot_boot.system import block
from cryptpilot_boot.volume import State, examine, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.units.competing import Competitor
    from cryptpilot_boot.volume import Status


Paint = Callable[[str, str], str]
"""Puts a text (first argument) into a color (second)."""


def show(config: Config, names: Sequence[str], *, as_json: bool, paint: Paint | None = None) -> list[str]:
    """Return the lines to print: a table, its states painted if that can be seen, or one JSON array.

    Below the table stands what else on this machine would open these volumes at boot, and whose client key ends.
    """
    chosen = select(config, names)
    statuses = [examine(volume) for volume in chosen]
    competitors = competing.find(chosen)
    if as_json:
        return [json.dumps([_record(status, competitors) for status in statuses], indent=2)]
    if not statuses:
        return notes(config)
    lines = table([_HEADER, *(_row(status) for status in statuses)])
    if paint:
        for number, status in enumerate(statuses, 2):  # below the header and its rule
            told = _told(status)
            lines[number] = lines[number].removesuffix(told) + paint(told, _COLORS[status.state])
    below = [*(f"warning: {one.sentence}" for one in competitors), *_endings(chosen, paint)]
    if below:
        lines += ["", *below]
    return lines if names else [*lines, *notes(config)]


def _endings(volumes: Sequence[Volume], paint: Paint | None) -> Iterator[str]:
    """Yield whose client key ends."""
    for volume in volumes:
        for ending in filter(None, map(keys.ending, volume.sources)):
            word, color = f"{ending.level.value}:", _LEVEL_COLORS[ending.level]
            yield f"{paint(word, color) if paint else word} {volume.volume}: {ending.what}; {ending.todo}"


def _client_key_ends(volume: Volume) -> str | None:
    ends = min(filter(None, map(keys.ends, volume.sources)), default=None)
    return f"{ends:%Y-%m-%dT%H:%M:%SZ}" if ends else None


_LEVEL_COLORS = {Level.NOTE: "cyan", Level.WARNING: "yellow", Level.URGENT: "red"}
_COLORS = {
    State.DEVICE_NOT_FOUND: "red",
    State.CHECK_FAILED: "red",
    State.REQUIRES_INIT: "yellow",
    State.REQUIRES_ADOPT: "yellow",
    State.INITIALIZING: "yellow",
    State.CONVERTING: "yellow",
    State.READY_TO_OPEN: "cyan",
    State.OPENED: "green",
}
_HEADER = [
    "Volume",
    "Volume Path",
    "Underlying Device",
    "Key Provider",
    "Extra Options",
    "Initialized",
    "Opened",
    "Status",
]


def _row(status: Status) -> list[str]:
    volume = status.volume
    options = {
        "auto_open": volume.auto_open,
        f"makefs={volume.makefs}": volume.makefs,
        "integrity": volume.integrity,
        "required": volume.required,
        f"sector_size={volume.sector_size}": volume.sector_size,
        "discard": volume.discard,
        "recovery key": status.recovery_key,
    }
    return [
        volume.volume,
        volume.mapper_path,
        volume.dev,
        _providers(status),
        ", ".join(name for name, on in options.items() if on) or "-",
        "Not required" if volume.temporary else str(status.initialized),
        str(status.opened),
        _told(status),
    ]


def _providers(status: Status) -> str:
    """Name the key providers, and which of several opened the volume."""
    names = ", ".join(source.provider for source in status.volume.sources)
    by = _opened_by(status)
    return f"{names} (opened by {by})" if by else names


def _opened_by(status: Status) -> str:
    return opened.source(status.volume.volume) if status.opened and status.volume.fallbacks else ""


def _told(status: Status) -> str:
    return f"{status.state.value}: {status.detail}" if status.detail else status.state.value


def _record(status: Status, competitors: Sequence[Competitor] = ()) -> dict[str, object]:
    volume = status.volume
    return {
        "volume": volume.volume,
        "volume_path": volume.mapper_path,
        "underlying_device": volume.dev,
        **_as_elsewhere(status),
        "key_provider": volume.encrypt.provider,
        "fallbacks": [{"provider": one.encrypt.provider, "after": one.after} for one in volume.fallbacks],
        "opened_by": _opened_by(status) or None,
        "auto_open": volume.auto_open,
        "makefs": volume.makefs,
        "integrity": volume.integrity,
        "required": volume.required,
        "sector_size": volume.sector_size,
        "discard": volume.discard,
        "temporary": volume.temporary,
        "recovery_key": status.recovery_key,
        "bound": None if volume.temporary else volume.identity is not None,
        "initialized": status.initialized,
        "opened": status.opened,
        "status": status.state.value,
        "detail": status.detail,
        "rotation_pending": status.rotation_pending,
        "reencrypting": status.reencrypting,
        "competing": [
            {"place": one.place, "what": one.what, "to_do": one.todo}
            for one in competitors
            if one.volume == volume.volume
        ],
        "client_key_ends": _client_key_ends(volume),
        "unused_bytes": status.growth.unused if status.growth else None,
        "unpartitioned_bytes": status.growth.unpartitioned if status.growth else None,
    }


def _as_elsewhere(status: Status) -> dict[str, object]:
    """Return what the existing Rust implementation says of a volume, by its names where ours are others.

    Its "key_provider_options" are missing: they are the credentials. Its "status" has other words than ours, which
    stay.
    """
    volume = status.volume
    extra = {"auto_open": volume.auto_open, "makefs": volume.makefs, "integrity": volume.integrity}
    return {
        "underlay_device": volume.dev,
        "device_exists": block.is_block_device(volume.dev),
        "extra_options": {name: value for name, value in extra.items() if value is not None},
        "needs_initialize": not volume.temporary,  # whether it is of the kind that does, initialized or not
        "description": _told(status),
    }


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns; the first is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]

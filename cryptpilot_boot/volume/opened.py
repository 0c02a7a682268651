"""What this machine knows of the volumes it opened: by which volume key, as the header that was checked has it.

The kernel does not tell the key of an open device, and the header on the disk is the host's to change. Kept in memory
(/run), also across the pivot.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptpilot_boot import log, paths
from cryptpilot_boot.system import mappings, private

DIRECTORY = paths.OPENED
SOURCES = paths.OPENED_BY


def note(volume: str, key: str, directory: Path = DIRECTORY) -> None:
    """Keep by which volume key the volume of a name has just been opened. key: as luks_data.volume_key has it.

    No failure is worth one: the volume is open, and what wants to know says that it does not.
    """
    mapping = mappings.find(volume)
    if mapping is None:
        return
    with log.telling(f"by which key {volume} was opened"):
        private.write(private.directory(directory) / volume, _line(mapping, key))


def forget(volume: str, directory: Path = DIRECTORY) -> None:
    """Forget a volume that was closed."""
    with log.telling(f"that {volume} was closed"):
        (directory / volume).unlink(missing_ok=True)
        (SOURCES / volume).unlink(missing_ok=True)


def note_source(volume: str, name: str) -> None:
    """Keep which of its sources gave the key by which a volume was opened. name: "" if it has one, or it was none."""
    with log.telling(f"what opened {volume}"):
        if name:
            private.write(private.directory(SOURCES) / volume, f"{name}\n")
        else:
            (SOURCES / volume).unlink(missing_ok=True)


def source(volume: str) -> str:
    """Return what `note_source` was given of a volume that is open; "" where it is not known."""
    return _read(volume, SOURCES).strip()


def is_known(volume: str, directory: Path = DIRECTORY) -> bool:
    """Tell whether it is known how the volume that is open was opened."""
    return _read(volume, directory).startswith(f"{_identity(volume)}: ")


def is_by(volume: str, key: str, directory: Path = DIRECTORY) -> bool:
    """Tell whether the volume that is open was opened by a volume key; key: as of `note`."""
    mapping = mappings.find(volume)
    return mapping is not None and _read(volume, directory) == _line(mapping, key)


def _read(volume: str, directory: Path) -> str:
    try:
        return (directory / volume).read_text()
    except OSError:
        return ""


def _identity(volume: str) -> str:
    mapping = mappings.find(volume)
    return mappings.identity(mapping) if mapping else ""


def _line(mapping: mappings.Mapping, key: str) -> str:
    return f"{mappings.identity(mapping)}: {hashlib.sha256(key.encode()).hexdigest()}\n"

"""What this machine knows of open volumes: the volume key, as a digest, and the source that gave the key.

The kernel does not reveal the key of an open device, and the host can change the header on the disk. Kept in memory
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
    """Note by which volume key a volume was opened. key: that of `luks_data.volume_key`.

    A failure is ignored, since the volume is open: a command that needs the note says that it is missing.
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
    """Note which source gave the key of a volume. name: "" if the volume has one source, or none was asked."""
    with log.telling(f"what opened {volume}"):
        if name:
            private.write(private.directory(SOURCES) / volume, f"{name}\n")
        else:
            (SOURCES / volume).unlink(missing_ok=True)


def source(volume: str) -> str:
    """Return what `note_source` noted of an open volume; "" if that is not known."""
    return _read(volume, SOURCES).strip()


def is_known(volume: str, directory: Path = DIRECTORY) -> bool:
    """Tell whether there is a note of the key by which an open volume was opened."""
    return _read(volume, directory).startswith(f"{_identity(volume)}: ")


def is_by(volume: str, key: str, directory: Path = DIRECTORY) -> bool:
    """Tell whether an open volume was opened by a volume key. key: as for `note`."""
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

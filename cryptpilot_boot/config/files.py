"""Files below a configuration directory: those that are read, and those that only look like it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import names
from cryptpilot_boot.errors import ConfigError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config.model import Config

_SUFFIX = ".toml"
_FDE_FILE = "fde.toml"
_FDE = (
    "it configures the full-disk encryption of cryptpilot-fde; here a root file system is on a volume like any other:"
    " a file in volumes/ with auto_open = true"
)
# What editors and package managers leave beside the file that is in use.
_LEFT_BEHIND = re.compile(
    r"#.*#|~\$.*|.*~|.*\.(bak|old|orig|rej|save|sav|tmp|swp|swo|swx|part|disabled|rpm(new|save|orig)|dpkg-\w+|ucf-\w+)",
    re.IGNORECASE,
)
_LIKE_VOLUMES = re.compile(r"volumes?(\.d)?", re.IGNORECASE)
# What a file that cannot be read as a whole seems to say.
_REQUIRED = re.compile(r"""^[ \t]*["']?required["']?[ \t]*=[ \t]*true""", re.MULTILINE)
_VOLUME = re.compile(r"""^[ \t]*["']?volume["']?[ \t]*=[ \t]*(["'])(.*?)\1""", re.MULTILINE)
_DOCUMENTATION = re.compile(r"(README|COPYING|LICENSE|NOTES?)(\..*)?|.*\.(md|rst)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class PassedOver:
    """A file that is not read, and why. likely: whether a person may think that it is read."""

    path: Path
    why: str
    likely: bool

    def __str__(self) -> str:
        return f"{printable(str(self.path))} is ignored: {self.why}"


@dataclasses.dataclass(frozen=True)
class VolumeFiles:
    """The files of volumes, in order, and the files that are ignored."""

    volumes: tuple[Path, ...]
    passed_over: tuple[PassedOver, ...]


def find(directory: Path) -> VolumeFiles:
    """List the files of a configuration directory. Raises ConfigError if a directory cannot be read."""
    inside = directory / "volumes"
    entries = _entries(inside)
    volumes = tuple(path for path in entries if _is_configuration(path.name))
    others = [PassedOver(path, *_reason(path)) for path in entries if path not in volumes]
    return VolumeFiles(volumes, (*_outside(directory), *others))


def unusable(config: Config) -> set[str]:
    """Return what volumes may be called whose files cannot be used: as their files, or as the text seems to say.

    Not those that may be required: their mounts stay with local-fs.target, whatever else is wrong with the file.
    """
    found = find(config.directory).volumes
    used = {one.source.stem for one in config.volumes}
    texts = {file.stem: _text(file) for file in found if file.stem not in used}
    called = {stem: {stem, *(match[2] for match in _VOLUME.finditer(text))} for stem, text in texts.items()}
    required = {stem for stem, text in texts.items() if _REQUIRED.search(text)}
    named = {name for stem in called.keys() - required for name in called[stem]}
    named -= {name for stem in required for name in called[stem]}
    return {name for name in named if not names.volume(name)}


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be read: {error.strerror}") from None


def _is_configuration(name: str) -> bool:
    """Tell whether a file in volumes/ is read. Names of temporary files of editors begin with a dot or ~$."""
    return name.endswith(_SUFFIX) and not name.startswith((".", "~$"))


def _reason(path: Path) -> tuple[str, bool]:
    """Return why a file in volumes/ is ignored, and whether a person may think that it is read."""
    name = path.name
    if name.startswith("."):
        return "its name begins with a dot", False
    if path.is_dir():
        return "it is a directory", False
    if _LEFT_BEHIND.fullmatch(name):
        return "its name is one of a backup", False
    return f"its name does not end in {_SUFFIX}", not _DOCUMENTATION.fullmatch(name)


def _outside(directory: Path) -> Iterator[PassedOver]:
    """Find files that may be meant as volumes, in places where they are not read."""
    for path in _entries(directory):
        name = path.name
        if _LIKE_VOLUMES.fullmatch(name) and name != "volumes" and path.is_dir():
            yield PassedOver(path, f"volumes are read from {directory}/volumes", likely=True)
        if name in ("global.toml", "volumes") or name.startswith(".") or not name.lower().endswith(_SUFFIX):
            continue
        if name == _FDE_FILE:
            yield PassedOver(path, _FDE, likely=True)
        elif name.lower() == "global.toml":
            yield PassedOver(path, "settings are read from global.toml, in lower case", likely=True)
        else:
            yield PassedOver(path, f"volumes are read from {directory}/volumes", likely=True)

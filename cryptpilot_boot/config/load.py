"""Reading a configuration directory."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

import tomli

from cryptpilot_boot.config import schema
from cryptpilot_boot.config.model import Boot, Config, Volume
from cryptpilot_boot.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

DEFAULT_DIRECTORY = Path("/etc/cryptpilot")


def load(directory: Path = DEFAULT_DIRECTORY) -> Config:
    """Read global.toml and volumes/*.toml below `directory`.

    A missing global.toml means its defaults, a missing volumes/ no volumes: a machine that was just installed has
    neither. A file that cannot be used is left out, and is one of the problems: the volumes of the others are none
    the worse for it. Raises ConfigError when a directory cannot be read, or there is none.
    """
    there = os.path.isdir(directory)  # noqa: PTH112 - Path.is_dir raises on a name that is too long
    if there and not os.access(directory, os.R_OK | os.X_OK):
        raise ConfigError(f"{directory}: cannot be read", "run this as root")
    if not there:
        raise ConfigError(
            f"{directory}: no such configuration directory",
            "create it, or name another with --config-dir",
        )
    problems: list[ConfigError] = []

    def usable(path: Path, value: Callable[[schema.Document], T]) -> Iterator[T]:
        """Give the value of a file, if it has one."""
        try:
            yield value(_parse(path))
        except ConfigError as error:
            # without the frames it came through, which hold the text with its credentials
            problems.append(ConfigError(error.what, error.hint))

    global_file = directory / "global.toml"
    boot = next(usable(global_file, schema.boot), Boot()) if _is_there(global_file) else Boot()
    files = _toml_files(directory / "volumes")
    volumes = [volume for file in files for volume in usable(file, schema.volume)]
    volumes = list(_without_conflicts(volumes, problems))
    return Config(directory, boot, tuple(volumes), tuple(_warnings(volumes)), tuple(problems))


def _toml_files(directory: Path) -> list[Path]:
    try:
        return sorted(file for file in directory.iterdir() if file.suffix == ".toml")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be read: {error.strerror}") from None


def _is_there(path: Path) -> bool:
    """Tell whether there is a file, be it a link to nowhere."""
    return path.is_symlink() or path.exists()


def _parse(path: Path) -> schema.Document:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is no regular file")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    try:
        # TOML ends a line with LF or CRLF; tomli.loads wants what universal newlines would give
        data = tomli.loads(text.replace("\r\n", "\n"))
    except tomli.TOMLDecodeError as error:
        # the message holds a position and at most one character of the text, no value
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except ValueError:
        # Python's own limit, in digits; see sys.int_info
        raise ConfigError(f"{path}: not valid TOML: a number is too long") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    return schema.Document(path, text, data)


def _without_conflicts(volumes: Sequence[Volume], problems: list[ConfigError]) -> Iterator[Volume]:
    """Leave out volumes of one name or on one device: nobody knows which of them was meant."""
    out: set[Path] = set()
    for of, said, hint in _ALIKE:
        groups: dict[str, list[Volume]] = defaultdict(list)
        for volume in volumes:
            groups[of(volume)].append(volume)
        for first, *others in groups.values():
            for other in others:
                problems.append(ConfigError(f"{other.source}: {said.format(volume=other, first=first)}", hint))
                out |= {first.source, other.source}
    return (volume for volume in volumes if volume.source not in out)


# What no two volumes may share, what to say of them, and what to do.
_ALIKE: tuple[tuple[Callable[[Volume], str], str, str], ...] = (
    (
        lambda volume: volume.volume,
        'volume "{volume.volume}" is already defined in {first.source}',
        "give one of them another name; until then neither is used",
    ),
    (
        lambda volume: volume.dev,
        'device {volume.dev} already belongs to volume "{first.volume}" ({first.source})',
        "give each volume a device of its own; until then neither is used",
    ),
)


def _warnings(volumes: Sequence[Volume]) -> Iterator[str]:
    for volume in volumes:
        mode = stat.S_IMODE(volume.source.stat().st_mode)
        if volume.encrypt.credentials and mode & 0o077:
            yield (
                f"{volume.source} holds {volume.encrypt.credentials} and can be read by others (mode {mode:04o}):"
                f" chmod 600 {volume.source}"
            )

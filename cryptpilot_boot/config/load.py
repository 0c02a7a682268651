"""Reading a configuration directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import tomli

from cryptpilot_boot.config import schema
from cryptpilot_boot.config.model import Boot, Config, Kms, Volume
from cryptpilot_boot.errors import ConfigError

DEFAULT_DIRECTORY = Path("/etc/cryptpilot")


def load(directory: Path = DEFAULT_DIRECTORY) -> Config:
    """Read global.toml and volumes/*.toml below `directory`.

    A missing global.toml means its defaults, a missing volumes/ no volumes: a machine that was just installed has
    neither. Raises ConfigError on the first file that cannot be used.
    """
    if not os.access(directory, os.R_OK | os.X_OK) and directory.is_dir():
        raise ConfigError(f"{directory}: cannot be read", "run this as root")
    if not directory.is_dir():
        raise ConfigError(
            f"{directory}: no such configuration directory",
            "create it, or name another with --config-dir",
        )
    global_file = directory / "global.toml"
    boot = schema.boot(_parse(global_file)) if global_file.exists() else Boot()
    files = sorted((directory / "volumes").glob("*.toml"))
    volumes = tuple(schema.volume(_parse(file)) for file in files)
    _no_two_alike(volumes)
    return Config(directory, boot, volumes, tuple(_warnings(volumes)))


def _parse(path: Path) -> schema.Document:
    try:
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
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    return schema.Document(path, text, data)


def _no_two_alike(volumes: tuple[Volume, ...]) -> None:
    """Refuse two volumes of one name, or on one device: the second would write over the first."""
    names: dict[str, Volume] = {}
    devices: dict[str, Volume] = {}
    for volume in volumes:
        other = names.setdefault(volume.volume, volume)
        if other is not volume:
            raise ConfigError(
                f'{volume.source}: volume "{volume.volume}" is already defined in {other.source}',
                "give one of them another name",
            )
        other = devices.setdefault(volume.dev, volume)
        if other is not volume:
            raise ConfigError(
                f'{volume.source}: device {volume.dev} already belongs to volume "{other.volume}" ({other.source})',
                "give each volume a device of its own",
            )


def _warnings(volumes: tuple[Volume, ...]) -> list[str]:
    found = []
    for volume in volumes:
        mode = stat.S_IMODE(volume.source.stat().st_mode)
        if isinstance(volume.encrypt, Kms) and mode & 0o077:
            found.append(
                f"{volume.source} holds a client key and can be read by others (mode {mode:04o}):"
                f" chmod 600 {volume.source}"
            )
    return found

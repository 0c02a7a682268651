"""Reading a configuration directory."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

import tomli

from cryptpilot_boot import names, text
from cryptpilot_boot.config import files, schema, trust
from cryptpilot_boot.config.document import Document
from cryptpilot_boot.config.model import IDENTITIES, Boot, Config, Volume
from cryptpilot_boot.errors import ConfigError, printable
from cryptpilot_boot.providers import table
from cryptpilot_boot.system.programs import located

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

DEFAULT_DIRECTORY = Path("/etc/cryptpilot")


def load(directory: Path = DEFAULT_DIRECTORY, *, others: bool = True) -> Config:
    """Read global.toml, volumes/*.toml, and the identities/*.toml of these volumes, below `directory`.

    Without global.toml its defaults apply, and without volumes/ there are no volumes, as after an installation. A file
    that is faulty, or that another user can change, is left out: it becomes one of the problems, and other volumes are
    not affected. If another user can create files in one of the directories, no file is read.

    others: whether this system may have other users. Raises ConfigError if the directory is missing or cannot be read.
    """
    there = os.path.isdir(directory)  # noqa: PTH112 - Path.is_dir raises on a name that is too long
    if there and not os.access(directory, os.R_OK | os.X_OK):
        raise ConfigError(f"{directory}: cannot be read", "run this as root")
    if not there:
        raise ConfigError(
            f"{directory}: no such configuration directory",
            "create it, or name another with --config-dir",
        )
    own = (directory, directory / "volumes", directory / IDENTITIES)
    problems: list[ConfigError] = []

    def usable(path: Path, value: Callable[[Document], T]) -> Iterator[T]:
        """Yield the value of a file, if it has one."""
        try:
            yield value(_parse(path, others=others))
        except ConfigError as error:
            # a new error: the frames of this one refer to the text, with its credentials
            problems.append(ConfigError(error.what, error.hint))

    if others:
        for path in own:
            try:
                _require_trust(path, own)
            except ConfigError as error:
                return Config(directory, Boot(), (), problems=(error,))
    global_file = directory / "global.toml"
    boot = next(usable(global_file, schema.boot), Boot()) if _is_there(global_file) else Boot()
    found = files.find(directory)
    config = Config(directory, boot, (), passed_over=found.passed_over)

    def volume_of(document: Document) -> Volume:
        volume = schema.volume(document)
        if others:
            _require_trusted_programs(volume)
        return _with_identity(volume, config, others=others)

    volumes = [volume for file in found.volumes for volume in usable(file, volume_of)]
    volumes = list(_without_conflicts(volumes, problems))
    return dataclasses.replace(
        config, volumes=tuple(volumes), warnings=tuple(_warnings(volumes)), problems=tuple(problems)
    )


def _with_identity(volume: Volume, config: Config, *, others: bool) -> Volume:
    """Return a volume with its binding. Only if the file is missing, the volume is not bound."""
    path = config.identity_file(volume.volume)
    if volume.temporary:
        return volume
    try:
        path.lstat()
    except FileNotFoundError:
        return volume
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if others:
        _require_trust(path)  # raises with a hint of its own
    try:
        return dataclasses.replace(volume, identity=schema.identity(_parse(path, others=False)))
    except ConfigError as error:
        raise ConfigError(
            error.what,
            f"it says which disk belongs to volume {volume.volume}; if the disk is the right one:"
            f" rm {path}; cryptpilot bind {volume.volume}",
        ) from None


def _is_there(path: Path) -> bool:
    """Tell whether a path exists, even as a dangling link."""
    return path.is_symlink() or path.exists()


def _require_trust(path: Path, own: Sequence[Path] = ()) -> None:
    try:
        trust.require(path, own)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _require_trusted_programs(volume: Volume) -> None:
    """Raise ConfigError if another user can change a program that gives the key of a volume."""
    programs = (name for one in volume.sources for name in table.of(one).needs(one).programs)
    for path in map(located, programs):
        try:
            if path:
                trust.require(Path(path))
        except ConfigError as error:
            raise ConfigError(f"{volume.source}: the program {error.what}", error.hint) from None
        except OSError as error:
            raise ConfigError(f"{volume.source}: the program {path} cannot be looked at: {error.strerror}") from None


def _parse(path: Path, *, others: bool) -> Document:
    """Read a file. others: as for `load`; other users must not be able to change it."""
    if complaint := names.file(path.name):
        raise ConfigError(f"{printable(str(path))}: {complaint}", "rename it")
    if others:
        _require_trust(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is no regular file")
        content = text.decode(path, path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        data = tomli.loads(content)
    except tomli.TOMLDecodeError as error:
        raise _not_toml(path, content, str(error)) from None
    except ValueError:
        # Python's own limit, in digits; see sys.int_info
        raise ConfigError(f"{path}: not valid TOML: a number is too long") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    return Document(path, content, data)


def _not_toml(path: Path, content: str, said: str) -> ConfigError:
    """Return the error for a file that is not TOML.

    It names a character that looks like another one, if that is the cause. said: the message of tomli, with a position
    and at most one character of the text.
    """
    place = _PLACE.search(said)
    char = text.lookalike(content, int(place[1]), int(place[2])) if place else ""
    line = 0
    if not place:  # the message is about the end of the document: a string is not closed
        line, char = text.lookalike_quotation_mark(content)
    if char:
        where = f", in line {line}" if line else ""
        return ConfigError(f"{path}: not valid TOML: {said}; there is {text.describe(char)}{where}", text.mend(char))
    return ConfigError(f"{path}: not valid TOML: {said}")


_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)$")


def _without_conflicts(volumes: Sequence[Volume], problems: list[ConfigError]) -> Iterator[Volume]:
    """Leave out volumes that share a name or a device: it is not known which of them was meant."""
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


# What two volumes must not share, the error, and its hint.
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
        credentials = " and ".join(dict.fromkeys(filter(None, (one.credentials for one in volume.sources))))
        if credentials and mode & 0o077:
            yield (
                f"{volume.source} holds {credentials} and can be read by others (mode {mode:04o}):"
                f" chmod 600 {volume.source}"
            )
        cautions = dict.fromkeys(table.of(one).caution(one) for one in volume.sources)
        yield from (f"{volume.source}: {caution}" for caution in cautions if caution)

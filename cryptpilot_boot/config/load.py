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
    """Read global.toml, volumes/*.toml, and identities/*.toml of these volumes, below `directory`.

    A missing global.toml means its defaults, a missing volumes/ no volumes: a machine that was just installed has
    neither. A file that cannot be used, or that somebody else can change, is left out, and is one of the problems: the
    volumes of the others are none the worse for it. Where somebody else can put files into one of the directories, no
    file is read. others: whether this system may have other users. Raises ConfigError when a directory cannot be read,
    or there is none.
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
        """Give the value of a file, if it has one."""
        try:
            yield value(_parse(path, others=others))
        except ConfigError as error:
            # without the frames it came through, which hold the text with its credentials
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
    """Return a volume with what it is bound to. Only a file that is not there means that it is bound to nothing."""
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
        _require_trust(path)  # with its own hint
    try:
        return dataclasses.replace(volume, identity=schema.identity(_parse(path, others=False)))
    except ConfigError as error:
        raise ConfigError(
            error.what,
            f"it says which disk belongs to volume {volume.volume}; if the disk is the right one:"
            f" rm {path}; cryptpilot bind {volume.volume}",
        ) from None


def _is_there(path: Path) -> bool:
    """Tell whether there is a file, be it a link to nowhere."""
    return path.is_symlink() or path.exists()


def _require_trust(path: Path, own: Sequence[Path] = ()) -> None:
    try:
        trust.require(path, own)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _require_trusted_programs(volume: Volume) -> None:
    """Raise ConfigError when somebody else can change a program that a volume's passphrase comes from."""
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
    """Read a file. others: see `load`; the file must not be theirs to change."""
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
    """Say what is wrong with a file, and name the character that it comes from if that looks like another.

    said: by tomli; it holds a position and at most one character of the text, no value.
    """
    place = _PLACE.search(said)
    char = text.lookalike(content, int(place[1]), int(place[2])) if place else ""
    line = 0
    if not place:  # it is at the end of the document: a string that does not end
        line, char = text.lookalike_quotation_mark(content)
    if char:
        where = f", in line {line}" if line else ""
        return ConfigError(f"{path}: not valid TOML: {said}; there is {text.describe(char)}{where}", text.mend(char))
    return ConfigError(f"{path}: not valid TOML: {said}")


_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)$")


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
        credentials = " and ".join(dict.fromkeys(filter(None, (one.credentials for one in volume.sources))))
        if credentials and mode & 0o077:
            yield (
                f"{volume.source} holds {credentials} and can be read by others (mode {mode:04o}):"
                f" chmod 600 {volume.source}"
            )
        cautions = dict.fromkeys(table.of(one).caution(one) for one in volume.sources)
        yield from (f"{volume.source}: {caution}" for caution in cautions if caution)

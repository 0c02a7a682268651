"""The record in an initrd image of what it was made from, and whether that has changed since.

A record holds no secret: it has digests of configuration files. A digest does not make a client key easier to guess,
since the key is random. And a user who can read the record can read the image, which has the file itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot import __version__, paths
from cryptpilot_boot.boot.plan import image_needs, initrd_volumes
from cryptpilot_boot.config.model import IDENTITIES
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.providers import table
from cryptpilot_boot.system import clock, unit_files
from cryptpilot_boot.system.programs import located

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cryptpilot_boot.config import Config


@dataclasses.dataclass(frozen=True)
class Record:
    """What an image is made from.

    version: of cryptpilot. agent: SHA-256 of the manifest of the frozen agent, "" without one. configuration:
    SHA-256 by path. volumes: what the image opens: providers by the names of volumes. programs, modules, network: as in
    ImageNeeds. commands: SHA-256 by path of the programs and files that key providers need. made: when, as ISO 8601 in
    UTC; the clock in the initrd is never before it, see keys/floor.py. Records of older versions lack the last two.
    """

    version: str
    agent: str
    configuration: Mapping[str, str]
    volumes: Mapping[str, str]
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    network: bool
    commands: Mapping[str, str] | None = None
    made: str | None = None

    @property
    def as_json(self) -> str:
        """Return the record as it is written into an image."""
        return json.dumps(dataclasses.asdict(self), indent=1)


@dataclasses.dataclass(frozen=True)
class Differences:
    """What has changed since an image was made, a sentence each."""

    configuration: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.agent, *self.configuration)


def make(config: Config, bundle: Path = paths.BUNDLE) -> Record:
    """Return the record of an image that would be made now. Raises CryptpilotError."""
    needs = image_needs(config)
    return Record(
        version=__version__,
        agent=digest(bundle / paths.MANIFEST.name),
        configuration=digests(str(path) for path in needs.configuration),
        volumes={
            one.volume: ", ".join(source.provider for source in one.sources)
            for one in config.volumes
            if one.source in needs.configuration
        },
        programs=needs.programs,
        modules=needs.modules,
        network=needs.network,
        commands=digests(map(str, commands(config))),
        made=clock.for_an_image().isoformat(),
    )


def commands(config: Config) -> tuple[Path, ...]:
    """Return the paths of the programs, files and services that an image has only because key providers need them."""
    needs = [table.of(source).needs(source) for one in initrd_volumes(config) for source in one.sources]
    programs = {located(name) for one in needs for name in one.programs}
    files = {path for one in needs for path in one.files}
    services = {path for one in needs for unit in one.units for path in unit_files.of(unit)}
    return tuple(Path(path) for path in sorted(programs | files | services) if path)


def changed(config: Config) -> float:
    """Return when what a record is made from was last changed, as seconds since the epoch.

    By the change time, which cannot be set back: package managers give files the time they were built at. A file that
    was removed leaves its mark on its directory.
    """
    directories = [config.directory, config.directory / "volumes", config.directory / IDENTITIES]
    files = [
        *directories,
        *image_needs(config).configuration,
        *commands(config),
        paths.MANIFEST,
    ]
    return max(path.stat().st_ctime for path in files if path.exists())


def parse(text: str) -> Record:
    """Read a record. Raises CryptpilotError if this version does not know its form."""
    try:
        table: dict[str, Any] = json.loads(text)
        for name in ("programs", "modules"):
            table[name] = tuple(table[name])
        if table.setdefault("commands") is not None:
            table["commands"] = dict(table["commands"])
        table.setdefault("made")
        return Record(**{field.name: table[field.name] for field in dataclasses.fields(Record)})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CryptpilotError(
            f"{paths.IMAGE_RECORD} in the image is damaged, or another version's",
            "rebuild the image: cryptpilot initrd rebuild",
        ) from None


def differences(record: Record, now: Record, on_disk: Mapping[str, str]) -> Differences:
    """Compare what an image was made from with what it would be made from now.

    on_disk: the digests of those files of the record that still exist; a file may exist and no longer be used.
    """
    sentences = list(_differing(record.configuration, now.configuration, on_disk))
    if record.commands is not None:
        sentences += _differing(record.commands, now.commands or {}, on_disk)
    agent = f"cryptpilot {record.version} is in it, and {now.version} is installed"
    if record.version == now.version:
        agent = f"another build of cryptpilot {now.version} is installed"
    return Differences(tuple(sentences), (agent,) if record.agent != now.agent else ())


def _differing(then: Mapping[str, str], now: Mapping[str, str], on_disk: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*then, *now}):
        if path not in then:
            yield f"{path} is new"
        elif path not in on_disk:
            yield f"{path} is gone"
        elif on_disk[path] != then[path]:
            yield f"{path} has changed"
        elif path not in now:
            yield f"{path} is no longer for the initrd"


def since(record: Record | None, now: Record) -> Differences:
    """Compare what an image was made from with what is on this machine. record: None if the image has none."""
    if record is None:
        return Differences(agent=("it was made by a version of cryptpilot that did not record its sources",))
    return differences(record, now, digests([*record.configuration, *(record.commands or ())]))


def digests(files: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of those files that exist, by path."""
    return {path: value for path in files if (value := digest(Path(path)))}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; "" if the file does not exist."""
    value = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                value.update(block)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    return value.hexdigest()

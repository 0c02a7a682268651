"""The configuration as values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cryptpilot_boot.config.files import PassedOver
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table
from cryptpilot_boot.providers.provider import Source

Encrypt = Source
"""The source of a volume's key: the value of `[encrypt]`."""


IDENTITIES = "identities"
"""The directory below that of the configuration that holds the bindings of volumes."""
FILE_SYSTEMS = ("swap", "ext4", "xfs", "vfat")
SECTOR_SIZES = (512, 4096)
"""Possible sector sizes of a LUKS2 volume, in bytes."""


FALLBACK_AFTER = 15
"""Default of `after`: seconds without an answer, after which the next source is asked too."""


@dataclasses.dataclass(frozen=True)
class Fallback:
    """A further source of a volume's key. after: seconds without an answer of those before it."""

    encrypt: Encrypt
    after: int = FALLBACK_AFTER


@dataclasses.dataclass(frozen=True)
class Identity:
    """The LUKS2 volume that belongs to a name; no other one is opened in its place.

    uuid: of its header, "" for none; shown to people only, since anyone can write it. volume_keys: SHA-256, in
    hexadecimal, of the digests of its volume key in the header. Another volume key has other digests. source: the file
    that holds this.
    """

    uuid: str
    volume_keys: frozenset[str]
    source: Path


@dataclasses.dataclass(frozen=True)
class Volume:
    """One encrypted volume.

    volume: name below /dev/mapper. dev: path of the underlying block device. makefs: file system of a new volume, None
    for none. initrd: whether the initrd may hold its configuration, credentials included. sector_size: of a new volume,
    in bytes; None to choose by the device. discard: whether unused blocks are discarded on the device. source: the file
    it was read from. identity: what it is bound to; None if any volume with the secret may open. required: whether the
    boot stops if a file system on it cannot be mounted that fstab names. fallbacks: further sources of its key.
    """

    volume: str
    dev: str
    encrypt: Encrypt
    source: Path
    auto_open: bool = False
    makefs: str | None = None
    integrity: bool = False
    initrd: bool = True
    sector_size: int | None = None
    discard: bool = False
    identity: Identity | None = None
    required: bool = False
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def sources(self) -> tuple[Encrypt, ...]:
        """All sources of its key, in the order in which they are asked."""
        return (self.encrypt, *(one.encrypt for one in self.fallbacks))

    def source_name(self, number: int) -> str:
        """Return the name of one of `sources`, as used on the command line."""
        return f"fallback{number}" if number else "encrypt"

    @property
    def mapper_path(self) -> str:
        """Path of the decrypted device."""
        return f"/dev/mapper/{self.volume}"

    @property
    def temporary(self) -> bool:
        """Whether the content of the volume is lost when it is closed."""
        return table.of(self.encrypt).one_time

    @property
    def needs_network(self) -> bool:
        """Whether one of its sources needs the network."""
        return any(table.of(one).needs(one).network for one in self.sources)


@dataclasses.dataclass(frozen=True)
class Boot:
    """`[boot]` of global.toml.

    verbose: print the time of each step on the console. timeout: seconds that a boot stage may take to open its
    volumes. late_after: seconds after which the initrd defers volumes that the pivot does not need to the booted
    system. emergency_shell: whether the initrd gives a root shell on the console if the boot cannot continue. ask:
    whether a person is asked on the console for a key that the provider does not give.
    """

    verbose: bool = False
    timeout: int = 90
    late_after: int = 30
    emergency_shell: bool = False
    ask: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration in one directory.

    warnings: sentences about what is valid but needs attention. problems: errors of single files, in order; their
    volumes are not among `volumes`. passed_over: files that are not read, though they are beside those that are.
    """

    directory: Path
    boot: Boot
    volumes: tuple[Volume, ...]
    warnings: tuple[str, ...] = ()
    problems: tuple[ConfigError, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()

    def identity_file(self, volume: str) -> Path:
        """Return the path of the file that binds a name to a LUKS2 volume."""
        return self.directory / IDENTITIES / f"{volume}.toml"

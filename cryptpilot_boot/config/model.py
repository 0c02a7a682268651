"""The configuration as values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cryptpilot_boot.config.files import PassedOver
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table
from cryptpilot_boot.providers.provider import Source

Encrypt = Source
"""What `[encrypt]` says."""


IDENTITIES = "identities"
"""The directory, below that of the configuration, of what volumes are bound to."""
FILE_SYSTEMS = ("swap", "ext4", "xfs", "vfat")
SECTOR_SIZES = (512, 4096)
"""What a LUKS2 volume may have its sectors be, in bytes."""


FALLBACK_AFTER = 15
"""Seconds without an answer after which the next source is asked too, unless the file says otherwise."""


@dataclasses.dataclass(frozen=True)
class Fallback:
    """A further source of a volume's key. after: seconds of silence of those before it, after which it is asked too."""

    encrypt: Encrypt
    after: int = FALLBACK_AFTER


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which LUKS2 volume belongs to a name, so that no other is opened in its place.

    uuid: what its header is called, "" for none; for people, since anybody can write it. volume_keys: SHA-256, in
    hexadecimal, of the digests by which the header knows its volume key: another volume key does not fit them. source:
    the file that says so.
    """

    uuid: str
    volume_keys: frozenset[str]
    source: Path


@dataclasses.dataclass(frozen=True)
class Volume:
    """One encrypted volume.

    volume: name below /dev/mapper. dev: path of the underlying block device. makefs: file system made on a new
    volume, None for none. initrd: whether the initrd may have it, its credentials included. sector_size: bytes of a
    new volume's sectors, None for what suits the device. discard: whether blocks that are not used any more are given
    back to the device. source: the file it was read from. identity: what it is bound to; None when any volume that its
    secret opens will do. required: whether the boot stops if what fstab mounts of it cannot be mounted.
    fallbacks: where else its key comes from.
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
        """Return what one of `sources` is called, on the command line too."""
        return f"fallback{number}" if number else "encrypt"

    @property
    def mapper_path(self) -> str:
        """Where the decrypted device appears."""
        return f"/dev/mapper/{self.volume}"

    @property
    def temporary(self) -> bool:
        """Whether what the volume holds is lost when it is closed."""
        return table.of(self.encrypt).one_time

    @property
    def needs_network(self) -> bool:
        """Whether its passphrase comes, or may have to come, over the network."""
        return any(table.of(one).needs(one).network for one in self.sources)


@dataclasses.dataclass(frozen=True)
class Boot:
    """`[boot]` of global.toml.

    verbose: time every step on the console. timeout: seconds a boot stage may take to open its volumes. late_after:
    seconds after which the initrd leaves a volume that the pivot does not need to the booted system. emergency_shell:
    whether the initrd gives a root shell on the console when a boot cannot go on. ask: whether a person is asked on the
    console for the key of a volume that its provider does not give.
    """

    verbose: bool = False
    timeout: int = 90
    late_after: int = 30
    emergency_shell: bool = False
    ask: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything below one configuration directory.

    warnings: what is not wrong but should be seen to, one sentence each. problems: what is wrong with single files,
    in order; their volumes are not among `volumes`. passed_over: files that are not read, though they are where others
    are.
    """

    directory: Path
    boot: Boot
    volumes: tuple[Volume, ...]
    warnings: tuple[str, ...] = ()
    problems: tuple[ConfigError, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()

    def identity_file(self, volume: str) -> Path:
        """Return where it is written which LUKS2 volume belongs to a name."""
        return self.directory / IDENTITIES / f"{volume}.toml"

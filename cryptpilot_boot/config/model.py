"""The configuration as values."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Union

from cryptpilot_boot.config.files import PassedOver
from cryptpilot_boot.errors import ConfigError

IDENTITIES = "identities"
"""The directory, below that of the configuration, of what volumes are bound to."""
FILE_SYSTEMS = ("swap", "ext4", "xfs", "vfat")
SECTOR_SIZES = (512, 4096)
"""What a LUKS2 volume may have its sectors be, in bytes."""
# They become part of a path and of a host name, wherever they come from: nothing else may be in them.
ROLE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
REGION_ID = re.compile(r"[a-z0-9](-?[a-z0-9]){0,39}")
# What KMS lets a secret be called (its API reference, CreateSecret), and the full name that says whose it is.
SECRET_NAME = re.compile(r"[A-Za-z0-9_/+=.@-]{1,192}")
SECRET_ARN = re.compile(
    rf"acs:kms:(?P<region>{REGION_ID.pattern}):(?P<account>[0-9]{{1,32}}):secret/(?P<name>{SECRET_NAME.pattern})"
)

CURRENT = "ACSCurrent"
PREVIOUS = "ACSPrevious"
"""What KMS calls the two values of a secret that was rotated (its version stages)."""


def instance_gateway(kms_instance_id: str) -> str:
    """Return the host name of a KMS instance's gateway inside its VPC."""
    return f"{kms_instance_id}.cryptoservice.kms.aliyuncs.com"


# Of every provider, beside what its table holds. provider: the table's name. credentials: what in it is nobody
# else's to read, "" for nothing.


@dataclasses.dataclass(frozen=True)
class Otp:
    """One-time password: a fresh random passphrase at each open; what the volume held before is gone."""

    provider = "otp"
    credentials = ""


@dataclasses.dataclass(frozen=True)
class Kms:
    """A secret kept in an Alibaba Cloud KMS instance, read with the client key of an access point.

    client_key: content of the clientKey_****.json file; client_key_password: of the ****_Password.txt file;
    kms_cert_pem: of the PrivateKmsCA_****.pem file, the CA chain that signs the instance's certificate.
    endpoint: "host[:port]" in place of the instance's own name inside the VPC. stage: which of the secret's values it
    is; the configuration names none, and means the current one.
    """

    provider = "kms"
    credentials = "a client key"

    kms_instance_id: str
    secret_name: str
    client_key: str = dataclasses.field(repr=False)
    client_key_password: str = dataclasses.field(repr=False)
    kms_cert_pem: str = dataclasses.field(repr=False)
    endpoint: str | None = None
    stage: str = CURRENT

    @property
    def address(self) -> str:
        """The gateway to ask, as "host" or "host:port" (default port 443)."""
        return self.endpoint or instance_gateway(self.kms_instance_id)


@dataclasses.dataclass(frozen=True)
class KmsRole:
    """A secret kept in Alibaba Cloud KMS, read with the RAM role of this ECS instance.

    secret_name: its name, or its full name (SECRET_ARN), which no secret of another account has. ecs_ram_role_name,
    region_id: None for what the instance's metadata service says. kms_instance_id: the KMS instance that the secret is
    in; with kms_cert_pem, its own gateway is asked. endpoint: "host[:port]" in place of that, or of the region's shared
    gateway inside the VPC. kms_cert_pem: the CA that alone is trusted, None for those that the system trusts. stage: as
    of Kms.
    """

    provider = "kms"
    credentials = ""

    secret_name: str
    ecs_ram_role_name: str | None = None
    region_id: str | None = None
    endpoint: str | None = None
    kms_cert_pem: str | None = dataclasses.field(default=None, repr=False)
    stage: str = CURRENT
    kms_instance_id: str | None = None

    @property
    def instance(self) -> str | None:
        """The KMS instance whose own gateway is asked; None for the shared gateway, whose CA is a public one."""
        return self.kms_instance_id if self.kms_cert_pem else None

    @property
    def host(self) -> str | None:
        """The gateway to ask, as "host" or "host:port", where that is known without the region."""
        return self.endpoint or (instance_gateway(self.instance) if self.instance else None)

    @property
    def region(self) -> str | None:
        """The region that the configuration names, on its own or as a part of the secret's full name."""
        full = SECRET_ARN.fullmatch(self.secret_name)
        return full["region"] if full else self.region_id

    def address_in(self, region: str) -> str:
        """Return the gateway to ask in a region, as "host" or "host:port" (default port 443)."""
        return self.host or f"kms-vpc.{region}.aliyuncs.com"


@dataclasses.dataclass(frozen=True)
class Exec:
    """What a program writes to its standard output, byte for byte.

    command: an absolute path, or a name looked up where programs of the system are. timeout: seconds it may take.
    """

    provider = "exec"
    credentials = ""

    command: str
    args: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    timeout: int = 30


Encrypt = Union[Otp, Kms, KmsRole, Exec]


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

    @property
    def mapper_path(self) -> str:
        """Where the decrypted device appears."""
        return f"/dev/mapper/{self.volume}"

    @property
    def temporary(self) -> bool:
        """Whether what the volume holds is lost when it is closed."""
        return isinstance(self.encrypt, Otp)

    @property
    def needs_network(self) -> bool:
        """Whether its passphrase comes over the network."""
        return isinstance(self.encrypt, (Kms, KmsRole))


@dataclasses.dataclass(frozen=True)
class Boot:
    """`[boot]` of global.toml.

    verbose: time every step on the console. timeout: seconds a boot stage may take to open its volumes. late_after:
    seconds after which the initrd leaves a volume that the pivot does not need to the booted system. emergency_shell:
    whether the initrd gives a root shell on the console when a boot cannot go on.
    """

    verbose: bool = False
    timeout: int = 90
    late_after: int = 30
    emergency_shell: bool = False


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

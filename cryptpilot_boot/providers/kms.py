"""A secret of Alibaba Cloud KMS, read with a client key or with the RAM role of this ECS instance.

`kms_instance` and `kms_role` ask. Each takes a tenth of a second to import, and only volumes that need it import it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cryptpilot_boot import names
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import client_key_text, kms_text, pem
from cryptpilot_boot.providers.fields import STRING, Key, TomlType
from cryptpilot_boot.providers.kms_text import SECRET_ARN
from cryptpilot_boot.providers.provider import Complaint, Needs, Provider, Source

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.provider import Ask

CURRENT = "ACSCurrent"
PREVIOUS = "ACSPrevious"
"""KMS's names for the two values of a secret after a rotation (version stages)."""


def instance_gateway(kms_instance_id: str) -> str:
    """Return the host name of a KMS instance's gateway inside its VPC."""
    return f"{kms_instance_id}.cryptoservice.kms.aliyuncs.com"


@dataclasses.dataclass(frozen=True)
class Kms(Source):
    """A secret in an Alibaba Cloud KMS instance, read with the client key of an access point.

    client_key: content of the clientKey_****.json file. client_key_password: of the ****_Password.txt file.
    kms_cert_pem: of the PrivateKmsCA_****.pem file, the CA chain of the instance's certificate. endpoint:
    "host[:port]", replaces the instance's name inside the VPC. stage: which value of the secret; the configuration
    always means the current one.
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
class KmsRole(Source):
    """A secret in Alibaba Cloud KMS, read with the RAM role of this ECS instance.

    secret_name: its name, or its full name (SECRET_ARN), which includes the account. ecs_ram_role_name, region_id: None
    to ask the metadata service of the instance. kms_instance_id: the KMS instance of the secret; with kms_cert_pem, its
    own gateway is asked. endpoint: "host[:port]", replaces that gateway, or the shared gateway of the region inside the
    VPC. kms_cert_pem: the only trusted CA, None for those of the system. stage: as for Kms.
    """

    provider = "kms"

    secret_name: str
    ecs_ram_role_name: str | None = None
    region_id: str | None = None
    endpoint: str | None = None
    kms_cert_pem: str | None = dataclasses.field(default=None, repr=False)
    stage: str = CURRENT
    kms_instance_id: str | None = None

    @property
    def instance(self) -> str | None:
        """The KMS instance whose own gateway is asked; None for the shared gateway, which has a public CA."""
        return self.kms_instance_id if self.kms_cert_pem else None

    @property
    def host(self) -> str | None:
        """The gateway to ask, as "host" or "host:port"; None if that depends on the region."""
        return self.endpoint or (instance_gateway(self.instance) if self.instance else None)

    @property
    def region(self) -> str | None:
        """The region in the configuration: its own key, or a part of the full name of the secret."""
        full = SECRET_ARN.fullmatch(self.secret_name)
        return full["region"] if full else self.region_id

    def address_in(self, region: str) -> str:
        """Return the gateway to ask in a region, as "host" or "host:port" (default port 443)."""
        return self.host or f"kms-vpc.{region}.aliyuncs.com"


def _prepare_with_client_key(kms: Kms) -> Ask:
    from cryptpilot_boot.providers import kms_instance

    return kms_instance.prepare(kms)


def _prepare_with_role(role: KmsRole) -> Ask:
    from cryptpilot_boot.providers import kms_role

    return kms_role.prepare(role)


def _describe_with_client_key(kms: Kms) -> dict[str, str]:
    return {
        "provider": f"KMS instance {kms.kms_instance_id}, {_which(kms)}",
        "endpoint": names.with_port(kms.address),
    }


def _describe_with_role(role: KmsRole) -> dict[str, str]:
    account = f"RAM role {role.ecs_ram_role_name}" if role.ecs_ram_role_name else "the instance's RAM role"
    whose = f"KMS instance {role.instance}" if role.instance else "KMS"
    return {
        "provider": f"{whose} with {account}, {_which(role)}",
        "endpoint": names.with_port(role.address_in(role.region or "<region>")),
    }


def _which(kms: Kms | KmsRole) -> str:
    return f'secret "{kms.secret_name}"' + ("" if kms.stage == CURRENT else f", {kms.stage}")


def _secret(kms: Kms | KmsRole) -> tuple[object, ...]:
    full = SECRET_ARN.fullmatch(kms.secret_name)
    return ("kms", full["name"] if full else kms.secret_name)


def _previous(kms: Kms | KmsRole) -> Source:
    return dataclasses.replace(kms, stage=PREVIOUS)


def _decode(kms: Kms | KmsRole, value: memoryview) -> Passphrase:
    from cryptpilot_boot.providers import kms_value

    return kms_value.decode(bytes(value).decode("latin-1"), kms.secret_name)


def _ends(kms: Kms) -> datetime.datetime | None:
    from cryptpilot_boot.providers import client_key

    try:
        return client_key.opened(kms).ends
    except KeyFetchError:
        return None  # `prepare` reports that


def _one_region(values: Mapping[str, Any]) -> Complaint | None:
    """Return a complaint if the full name of a secret and the file name two regions."""
    full = SECRET_ARN.fullmatch(values.get("secret_name", ""))
    if full and values.get("region_id", full["region"]) != full["region"]:
        return Complaint(
            "region_id",
            f"must be the region in secret_name, {full['region']}",
            "remove it: the full name of a secret has its region",
        )
    return None


_PEM = TomlType("a string", STRING.holds, pem.canonical)
_CLIENT_KEY = TomlType("a string", STRING.holds, client_key_text.canonical)
_PASSWORD = TomlType("a string", STRING.holds, client_key_text.canonical_password)

CLIENT_KEY = Provider(
    make=Kms,
    mode=("auth_mode", "client_key"),
    keys={
        "kms_instance_id": Key(STRING, kms_text.instance_id, required=True),
        "secret_name": Key(STRING, kms_text.secret_name, required=True),
        "client_key": Key(_CLIENT_KEY, kms_text.client_key, required=True),
        "client_key_password": Key(_PASSWORD, client_key_text.password_complaint, required=True),
        "kms_cert_pem": Key(_PEM, kms_text.certificates, required=True),
        "endpoint": Key(STRING, names.endpoint),
    },
    prepare=_prepare_with_client_key,
    describe=_describe_with_client_key,
    needs=lambda _: Needs(network=True),
    secret=_secret,
    previous=_previous,
    ends=_ends,
    decode=_decode,
)
RAM_ROLE = Provider(
    make=KmsRole,
    mode=("auth_mode", "ecs_ram_role"),
    keys={
        "kms_instance_id": Key(STRING, kms_text.instance_id),
        "secret_name": Key(STRING, kms_text.secret_name_or_arn, required=True),
        "ecs_ram_role_name": Key(STRING, kms_text.role_name),
        "region_id": Key(STRING, kms_text.region_id),
        "endpoint": Key(STRING, names.endpoint),
        "kms_cert_pem": Key(_PEM, kms_text.authority),
    },
    complain=_one_region,
    prepare=_prepare_with_role,
    describe=_describe_with_role,
    needs=lambda role: Needs(network=True, authorities=role.kms_cert_pem is None),
    secret=_secret,
    previous=_previous,
    decode=_decode,
)

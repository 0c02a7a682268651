"""A secret of Alibaba Cloud KMS, read with the token of an identity provider (OpenID Connect).

A program gives the token. The security token service exchanges it for temporary credentials of a RAM role. With these,
the shared gateway of KMS in the region is asked: `oidc_exchange`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot import names
from cryptpilot_boot.providers import kms_text
from cryptpilot_boot.providers.fields import STRING, STRINGS, TABLE, TIMEOUT, Key, TomlType, one_of
from cryptpilot_boot.providers.kms import CURRENT, PREVIOUS
from cryptpilot_boot.providers.kms_text import SECRET_ARN
from cryptpilot_boot.providers.provider import Needs, Provider, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.providers.provider import Ask

# Names that RAM permits: its API reference, CreateRole and CreateOIDCProvider.
_ROLE_ARN = re.compile(r"acs:ram::[0-9]{1,32}:role/[A-Za-z0-9._-]{1,64}")
_PROVIDER_ARN = re.compile(r"acs:ram::[0-9]{1,32}:oidc-provider/[A-Za-z0-9._-]{1,128}")
_TYPES = ("aliyun",)


@dataclasses.dataclass(frozen=True)
class Aliyun:
    """The services that exchange a token, and the role it is exchanged for.

    oidc_provider_arn, role_arn: full names in RAM. region_id: of the secret. endpoint, sts_endpoint: "host[:port]",
    replaces the region's own inside the VPC.
    """

    oidc_provider_arn: str
    role_arn: str
    region_id: str
    endpoint: str | None = None
    sts_endpoint: str | None = None


@dataclasses.dataclass(frozen=True)
class Oidc(Source):
    """A secret in KMS, read with a token from a program.

    command, args, timeout: the program, as for Exec. key_id: name of the secret, or its full name (SECRET_ARN). stage:
    which value of the secret; the configuration always means the current one.
    """

    provider = "oidc"

    command: str
    key_id: str
    kms: Aliyun
    args: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    timeout: int = 30
    stage: str = CURRENT

    @property
    def gateway(self) -> str:
        """The gateway of KMS to ask, as "host" or "host:port" (default port 443)."""
        return self.kms.endpoint or f"kms-vpc.{self.kms.region_id}.aliyuncs.com"

    @property
    def token_service(self) -> str:
        """The security token service to ask, as "host" or "host:port"."""
        return self.kms.sts_endpoint or f"sts-vpc.{self.kms.region_id}.aliyuncs.com"


def _role_arn(text: str) -> str:
    must = 'must be "acs:ram::<account, in digits>:role/<name>"'
    return "" if _ROLE_ARN.fullmatch(text) else f"{must}{names.holds(text, blank=True)}"


def _provider_arn(text: str) -> str:
    must = 'must be "acs:ram::<account, in digits>:oidc-provider/<name>"'
    return "" if _PROVIDER_ARN.fullmatch(text) else f"{must}{names.holds(text, blank=True)}"


_KMS = {
    "type": Key(STRING, one_of(_TYPES), required=True),
    "oidc_provider_arn": Key(STRING, _provider_arn, required=True),
    "role_arn": Key(STRING, _role_arn, required=True),
    "region_id": Key(STRING, kms_text.region_id, required=True),
    "endpoint": Key(STRING, names.endpoint),
    "sts_endpoint": Key(STRING, names.endpoint),
}


def _made(table: Mapping[str, str]) -> Aliyun:
    return Aliyun(**{name: value for name, value in table.items() if name != "type"})


def _prepare(oidc: Oidc) -> Ask:
    from cryptpilot_boot.providers import oidc_exchange

    return oidc_exchange.prepare(oidc)


def _require_usable(oidc: Oidc) -> None:
    from cryptpilot_boot.system import programs

    if fault := programs.fault(oidc.command):
        raise fault


def _describe(oidc: Oidc) -> dict[str, str]:
    which = f'secret "{oidc.key_id}"' + ("" if oidc.stage == CURRENT else f", {oidc.stage}")
    role = oidc.kms.role_arn.rpartition("/")[2]
    return {
        "provider": f"KMS with an OIDC token for RAM role {role}, {which}",
        "endpoint": names.with_port(oidc.gateway),
    }


def _secret(oidc: Oidc) -> tuple[object, ...]:
    full = SECRET_ARN.fullmatch(oidc.key_id)
    return ("kms", full["name"] if full else oidc.key_id)


PROVIDER = Provider(
    make=Oidc,
    keys={
        "command": Key(STRING, names.program, required=True),
        "args": Key(STRINGS, names.arguments),
        "timeout": TIMEOUT,
        "key_id": Key(STRING, kms_text.secret_name_or_arn, required=True),
        "kms": Key(TomlType(TABLE.words, TABLE.holds, _made), required=True, keys=_KMS),
    },
    prepare=_prepare,
    describe=_describe,
    needs=lambda oidc: Needs(programs=(oidc.command,), network=True, authorities=True),
    secret=_secret,
    previous=lambda oidc: dataclasses.replace(oidc, stage=PREVIOUS),
    require_usable=_require_usable,
)

"""The metadata service of an ECS instance: region, RAM role, and temporary credentials of the role.

Each request has a token, so that instances in security hardening mode need no special case. A socket is used directly:
`requests` would follow proxies and ~/.netrc.

Source of the facts: Alibaba Cloud help, Elastic Compute Service, "Instance metadata" and "Access instance metadata in
security hardening mode"; alibabacloud-credentials 1.0.12.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import foreign, kms_errors
from cryptpilot_boot.providers.gateway import Gateway
from cryptpilot_boot.providers.kms_text import REGION_ID, ROLE_NAME

if TYPE_CHECKING:
    from cryptpilot_boot.system.wait import Deadline

ADDRESS = "100.100.100.200"
_ROLES = "/latest/meta-data/ram/security-credentials/"
_REGION = "/latest/meta-data/region-id"
_TOKEN = "/latest/api/token"  # noqa: S105 - a path
_TOKEN_LIFE = 60  # seconds; enough for one try
_TIMEOUT = 5.0  # seconds; from within the host an answer takes milliseconds
_LEAST_TIMEOUT = 0.1
_LONGEST_ANSWER = 64 << 10  # bytes; credentials take one or two thousand

_OFF = "check that this is an ECS instance, and that its metadata service is turned on"
# Statuses that may change a moment later: the token has expired, or there are too many requests.
_TOO_MANY_REQUESTS = 429
_PASSING = (401, _TOO_MANY_REQUESTS)
_TROUBLE = 500
_NO_ROLE = "attach the RAM role to the instance: ECS console, Instance Settings, Attach/Detach RAM Role"


def _as_gateway() -> Gateway:
    return Gateway(ADDRESS, secret="", stage="", certificate="", name="", connection=_OFF, answer=_OFF)


@dataclass(frozen=True)
class Credentials:
    """Temporary credentials of a role."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)


@dataclass(frozen=True)
class Metadata:
    """The metadata service, with a new token. Methods raise KeyFetchError."""

    token: str = field(repr=False)
    deadline: Deadline

    def region(self) -> str:
        """Return the region's ID."""
        region = self._get(_REGION, "the region", f"{ADDRESS} knows no region", "set region_id in [encrypt.kms]")
        if not REGION_ID.fullmatch(region):
            raise _no_sense("the region", "set region_id in [encrypt.kms]")
        return region

    def role(self) -> str:
        """Return the name of the role that is attached to the instance."""
        missing = "no RAM role is attached to this instance"
        names = self._get(_ROLES, "the RAM role", missing, _NO_ROLE).split()
        if not names:
            raise KeyFetchError(missing, _NO_ROLE)
        if not ROLE_NAME.fullmatch(names[0]):
            raise _no_sense("the RAM role", "set ecs_ram_role_name in [encrypt.kms]")
        return names[0]

    def credentials(self, named: str | None) -> Credentials:
        """Return credentials of a role. The gateway decides whether they have expired: its clock is right.

        named: the role of the configuration; None for the attached one, whose name comes from the host and is not
        quoted.
        """
        called = f"RAM role {named}" if named else "the RAM role"
        what = f"credentials of {called}"
        missing = f"the RAM role {named} is not attached to this instance" if named else f"{ADDRESS} knows no such role"
        text = self._get(_ROLES + (named or self.role()), what, missing, f"{_NO_ROLE}, or correct ecs_ram_role_name")
        try:
            answer: dict[str, Any] = json.loads(text)
            code = answer.get("Code")
            if code != "Success":
                raise KeyFetchError(
                    f"{ADDRESS} has no {what}: {foreign.code(code) or 'it does not say why'}",
                    "check that the role is there, and that the service ecs.aliyuncs.com is trusted to assume it",
                    retryable=True,
                )
            parts = [answer[name] for name in ("AccessKeyId", "AccessKeySecret", "SecurityToken")]
        except (ValueError, TypeError, KeyError, AttributeError):
            # their texts may quote the answer
            raise _no_sense(what, _OFF) from None
        if not all(isinstance(part, str) and part.isascii() and part.isprintable() and part for part in parts):
            raise _no_sense(what, _OFF)
        return Credentials(*parts)

    def _get(self, path: str, what: str, missing: str, hint: str) -> str:
        status, text = _ask("GET", path, {"X-aliyun-ecs-metadata-token": self.token}, self.deadline)
        if status == http.client.NOT_FOUND:
            raise KeyFetchError(missing, hint)
        _require_success(status, what)
        return text.strip()


def connect(deadline: Deadline) -> Metadata:
    """Get a token. Raises KeyFetchError, which is `unreachable` if there is no route to the service."""
    headers = {"X-aliyun-ecs-metadata-token-ttl-seconds": str(_TOKEN_LIFE)}
    status, token = _ask("PUT", _TOKEN, headers, deadline)
    _require_success(status, "a token")
    token = token.strip()
    if not (token and token.isascii() and token.isprintable()):
        raise _no_sense("a token", _OFF)
    return Metadata(token, deadline)


def _ask(method: str, path: str, headers: dict[str, str], deadline: Deadline) -> tuple[int, str]:
    """Return the HTTP status and the text of an answer."""
    timeout = max(_LEAST_TIMEOUT, min(deadline.left(), _TIMEOUT))
    connection = http.client.HTTPConnection(ADDRESS, timeout=timeout)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_LONGEST_ANSWER).decode("ascii", "replace")
    except (OSError, http.client.HTTPException) as error:
        said = kms_errors.explain(error, _as_gateway())
        raise KeyFetchError(
            f"the instance's metadata service: {said.what}",
            said.hint,
            retryable=said.retryable,
            unreachable=said.unreachable,
        ) from None
    finally:
        connection.close()


def _require_success(status: int, what: str) -> None:
    if status != http.client.OK:
        raise KeyFetchError(
            f"the instance's metadata service at {ADDRESS} answers HTTP {status} when asked for {what}",
            _OFF,
            retryable=status in _PASSING or status >= _TROUBLE,
            throttled=status == _TOO_MANY_REQUESTS,
        )


def _no_sense(what: str, hint: str) -> KeyFetchError:
    return KeyFetchError(
        f"the instance's metadata service at {ADDRESS} gave an invalid answer when it was asked for {what}",
        hint,
        retryable=True,
    )

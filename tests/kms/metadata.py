"""The stand-in for an instance's metadata service: tokens, the region, the role, and its temporary credentials.

In a test:

    with MetadataServer() as service:
        ...  # ask service.endpoint
        service.role = None

Facts, and where they come from: Alibaba Cloud help, Elastic Compute Service, "Instance metadata" and "Access instance
metadata in security hardening mode": `PUT /latest/api/token` with a life of 1 to 21,600 seconds; with HttpTokens
`required` whoever has no token is answered 403, in the normal mode it may be left out, and one that is not good is
refused in both. `alibabacloud-credentials` 1.0.12 has the form of the credentials. That there is no role, or not that
one, is a 404.

Guessed: the status for a life that is none (400), and for a token that is not good (403).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests.kms.acs3 import ACCOUNT, OTHER_ACCOUNT, Grant
from tests.kms.behaviours import Reply
from tests.kms.transport import HttpRequest, Listener, Server

ADDRESS = "100.100.100.200"
TOKEN = "/latest/api/token"
ROLES = "/latest/meta-data/ram/security-credentials/"
REGION = "/latest/meta-data/region-id"
LONGEST_LIFE = 21600  # seconds

BEHAVIOURS = (
    *("ok", "no-role", "failed", "expired", "expired-at-kms", "no-answer", "nonsense", "off", "unavailable"),
    "another-account",
)
"""another-account: the credentials are of an account of whoever runs the host. failed: the role cannot be assumed.
expired: the credentials are told to have expired. expired-at-kms: they are told to last, and have expired for KMS.
no-answer: the connection stays silent. off: refuses everything, as when turned off.
"""


@dataclass(frozen=True)
class MetadataRequest:
    """One request, as it was served. It holds neither tokens nor credentials."""

    time: float  # seconds since the epoch
    method: str
    path: str
    token: bool  # whether one was sent
    status: int  # 0: no answer


class MetadataServer(Server):
    """A metadata service, to be used as a context manager.

    role: the one that is attached to the instance, "" for none. hardened: HttpTokens is `required`. life: how long
    credentials last. behaviour: one of BEHAVIOURS; with `file` that file says it, read anew for each request.
    on_request is called with each record. grants: what was given out, for the gateway to know, by access key ID.
    """

    def __init__(
        self,
        *,
        role: str = "disk-reader",
        region: str = "cn-hangzhou",
        hardened: bool = True,
        life: timedelta = timedelta(hours=6),
        address: tuple[str, int] = ("127.0.0.1", 0),
        file: Path | None = None,
        on_request: Callable[[MetadataRequest], None] | None = None,
    ) -> None:
        self.role = role
        self.region = region
        self.hardened = hardened
        self.life = life
        self.behaviour = "ok"
        self.grants: dict[str, Grant] = {}
        self.requests: list[MetadataRequest] = []
        self._tokens: dict[str, float] = {}
        self._file = file
        self._on_request = on_request
        super().__init__(Listener(address, None, answer=self._answer))

    def _answer(self, request: HttpRequest) -> Reply:
        arrived = time.time()
        if self._file:
            self.behaviour = self._file.read_text().strip() if self._file.exists() else "ok"
        reply = self._reply(request)
        has_token = "x-aliyun-ecs-metadata-token" in request.headers
        record = MetadataRequest(arrived, request.method, request.target, has_token, reply.status)
        self.requests.append(record)
        if self._on_request:
            self._on_request(record)
        return reply

    def _reply(self, request: HttpRequest) -> Reply:
        statuses = {"off": 403, "unavailable": 503}
        if self.behaviour == "no-answer":
            return Reply(outcome="no-answer", status=0, wait=threading.TIMEOUT_MAX)
        if self.behaviour in statuses:
            return _text(statuses[self.behaviour], "no")
        if request.method == "PUT":
            return self._give_token(request.headers) if request.target == TOKEN else _text(404, "no such thing")
        if request.method != "GET":
            return _text(405, "neither GET nor PUT")
        token = request.headers.get("x-aliyun-ecs-metadata-token")
        if (token is None and self.hardened) or (token is not None and self._tokens.get(token, 0) < time.monotonic()):
            return _text(403, "no good token")
        return self._tell(request.target)

    def _give_token(self, headers: Mapping[str, str]) -> Reply:
        life = headers.get("x-aliyun-ecs-metadata-token-ttl-seconds", "")
        if not life.isdecimal() or not 1 <= int(life) <= LONGEST_LIFE:
            return _text(400, "no life")
        token = base64.b64encode(os.urandom(42)).decode()
        self._tokens[token] = time.monotonic() + int(life)
        return _text(200, token)

    def _tell(self, path: str) -> Reply:
        role = "" if self.behaviour == "no-role" else self.role
        if self.behaviour == "nonsense":
            return _text(200, "<html>\u00e4\x1b[31m</html>")
        if path == REGION:
            return _text(200, self.region)
        if path == ROLES and role:
            return _text(200, role)
        if role and path == ROLES + role:
            return _text(200, json.dumps(self._credentials(), indent=2))
        return _text(404, "no such thing")

    def _credentials(self) -> dict[str, str]:
        """Give credentials out, and note them for the gateway."""
        if self.behaviour == "failed":
            return {"Code": "Failed", "Message": "The role cannot be assumed."}
        now = datetime.now(timezone.utc)
        told = now - timedelta(minutes=1) if self.behaviour == "expired" else now + self.life
        grant = Grant(
            access_key_id=f"STS.{secrets.token_hex(12)}",
            access_key_secret=secrets.token_urlsafe(33),
            security_token=f"CAIS{base64.b64encode(os.urandom(300)).decode()}",
            expires=now - timedelta(minutes=1) if self.behaviour == "expired-at-kms" else told,
            account=OTHER_ACCOUNT if self.behaviour == "another-account" else ACCOUNT,
        )
        self.grants[grant.access_key_id] = grant
        return {
            "AccessKeyId": grant.access_key_id,
            "AccessKeySecret": grant.access_key_secret,
            "Expiration": f"{told:%Y-%m-%dT%H:%M:%SZ}",
            "SecurityToken": grant.security_token,
            "LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "Code": "Success",
        }


def _text(status: int, text: str) -> Reply:
    return Reply(outcome=str(status), status=status, body=text.encode(), content_type="text/plain")

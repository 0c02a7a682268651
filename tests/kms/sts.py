"""The stand-in for the security token service: temporary credentials of a role for a token of an identity provider.

In a test:

    with (
        TokenService(certificate, tokens={"eyJ..."}) as sts,
        SharedGateway(secrets, sts.grants, certificate) as gateway,
    ):
        sts.behaviour = "expired"

Facts, and where they come from:

call: Alibaba Cloud help, Resource Access Management, "AssumeRoleWithOIDC" (version 2015-04-01), and how
    `alibabacloud-credentials` 1.0.12 and the SDK of that service call it: POST, parameters in the query, no signature;
    the action is a parameter with the one, a header with the other. A token has 4 to 20,000 characters.
codes: the same page, and errors of it that are quoted in programs and troubleshooting of Alibaba Cloud:
    AuthenticationFail.OIDCToken.Expired, .Invalid, .PublicKeyFingerprintMismatch; AuthenticationFail.NoPermission where
    the role's trust policy does not let the token assume it; EntityNotExist.Role.

Guessed: the status of these (400, 403, 404), the code for an unknown identity provider, and in which order a request
with two faults is judged.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from tests.kms import acs3
from tests.kms.acs3 import ACCOUNT, Grant
from tests.kms.behaviours import Reply
from tests.kms.errors import SERVICE_UNAVAILABLE, ErrorReply, Refused
from tests.kms.pki import ServerCertificate
from tests.kms.transport import HttpRequest, Listener, Server

ACTION, VERSION = "AssumeRoleWithOIDC", "2015-04-01"
ROLE = f"acs:ram::{ACCOUNT}:role/disk-reader"
PROVIDER = f"acs:ram::{ACCOUNT}:oidc-provider/attestation"
_TOKEN = range(4, 20_001)  # characters

UNKNOWN_ROLE = ErrorReply(404, "EntityNotExist.Role", "The role not exists.")
UNKNOWN_PROVIDER = ErrorReply(404, "EntityNotExist.OIDCProvider", "The OIDC provider not exists.")
EXPIRED = ErrorReply(400, "AuthenticationFail.OIDCToken.Expired", "This JsonWebToken is expired.")
INVALID = ErrorReply(400, "AuthenticationFail.OIDCToken.Invalid", "The OIDC token is invalid.")
MISMATCH = ErrorReply(400, "AuthenticationFail.OIDCToken.PublicKeyFingerprintMismatch", "Fingerprint mismatch.")
NO_PERMISSION = ErrorReply(403, "AuthenticationFail.NoPermission", "This operation is forbidden by permission system.")
THROTTLED = ErrorReply(400, "Throttling.User", "Request was denied due to user flow control.")
MISSING = ErrorReply(400, "MissingParameter", "A parameter is needed but no value was provided.")

_ERRORS = {
    "expired": EXPIRED,
    "invalid": INVALID,
    "fingerprint": MISMATCH,
    "untrusted": NO_PERMISSION,
    "throttle": THROTTLED,
    "unavailable": SERVICE_UNAVAILABLE,
}
BEHAVIOURS = ("ok", *_ERRORS, "hang", "nonsense", "no-credentials", "html", "expired-at-kms", "redirect")


@dataclass(frozen=True)
class Assumption:
    """One request, as it was served. It holds neither token nor credentials."""

    role: str
    session: str
    outcome: str


class TokenService(Server):
    """A security token service, to be used as a context manager.

    tokens: those that the identity provider has given out. behaviour: one of BEHAVIOURS; with `file` that file says it,
    read anew for each request. grants: what was given out, for the gateway to know, by access key ID.
    """

    def __init__(
        self,
        certificate: ServerCertificate,
        tokens: Collection[str],
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        file: Path | None = None,
        on_request: Callable[[Assumption], None] | None = None,
    ) -> None:
        self.tokens = tokens
        self.behaviour = "ok"
        self.grants: dict[str, Grant] = {}
        self.requests: list[Assumption] = []
        self._file = file
        self._on_request = on_request
        super().__init__(Listener(address, certificate, answer=self._answer))

    def _answer(self, request: HttpRequest) -> Reply:
        if self._file:
            self.behaviour = self._file.read_text().strip() if self._file.exists() else "ok"
        query = dict(parse_qsl(urlsplit(request.target).query) + parse_qsl(request.body.decode("utf-8", "replace")))
        try:
            self._verify(request.headers, query)
            reply = self._treat()
        except Refused as refused:
            reply = _error(refused.reply, request.headers.get("host", ""))
        record = Assumption(query.get("RoleArn", ""), query.get("RoleSessionName", ""), reply.outcome)
        self.requests.append(record)
        if self._on_request:
            self._on_request(record)
        return reply

    def _verify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        if query.get("Action", headers.get("x-acs-action")) != ACTION:
            raise Refused(acs3.UNKNOWN_ACTION)
        if query.get("Version", headers.get("x-acs-version")) != VERSION:
            raise Refused(acs3.UNKNOWN_VERSION)
        if not query.get("RoleSessionName") or len(query.get("OIDCToken", "")) not in _TOKEN:
            raise Refused(MISSING)
        if query.get("OIDCProviderArn") != PROVIDER:
            raise Refused(UNKNOWN_PROVIDER)
        if query["OIDCToken"] not in self.tokens:
            raise Refused(INVALID)
        if query.get("RoleArn") != ROLE:
            raise Refused(UNKNOWN_ROLE)

    def _treat(self) -> Reply:
        """Answer a valid request as the behaviour of the moment has it."""
        if self.behaviour in _ERRORS:
            raise Refused(_ERRORS[self.behaviour])
        if self.behaviour == "hang":
            return Reply(outcome="hang", status=0, wait=threading.TIMEOUT_MAX)
        if self.behaviour == "html":
            return Reply(outcome="html", status=502, body=b"<html>Bad Gateway</html>", content_type="text/html")
        if self.behaviour == "redirect":
            return Reply(outcome="redirect", status=307, location="http://127.0.0.1:9/")
        if self.behaviour == "nonsense":
            return _reply("nonsense", b'{"Credentials": ["\x1b[2J"]}')
        if self.behaviour == "no-credentials":
            return _reply("no-credentials", b'{"RequestId": "1"}')
        return _reply("ok", json.dumps(self._assumed()).encode())

    def _assumed(self) -> dict[str, object]:
        now = datetime.now(timezone.utc)
        told = now + timedelta(hours=1)
        grant = Grant(
            access_key_id=f"STS.{secrets.token_hex(12)}",
            access_key_secret=secrets.token_urlsafe(33),
            security_token=f"CAIS{base64.b64encode(os.urandom(300)).decode()}",
            expires=now - timedelta(minutes=1) if self.behaviour == "expired-at-kms" else told,
        )
        self.grants[grant.access_key_id] = grant
        return {
            "RequestId": str(uuid.uuid4()).upper(),
            "OIDCTokenInfo": {"Issuer": "https://idp.example", "VerificationInfo": "Success"},
            "AssumedRoleUser": {"Arn": f"{ROLE}/session", "AssumedRoleId": "3000:session"},
            "Credentials": {
                "AccessKeyId": grant.access_key_id,
                "AccessKeySecret": grant.access_key_secret,
                "SecurityToken": grant.security_token,
                "Expiration": f"{told:%Y-%m-%dT%H:%M:%SZ}",
            },
        }


def _reply(outcome: str, body: bytes, status: int = 200) -> Reply:
    return Reply(outcome=outcome, status=status, body=body, content_type=acs3.JSON)


def _error(error: ErrorReply, host: str) -> Reply:
    return _reply(error.code, acs3.write_error(error, host), error.status)

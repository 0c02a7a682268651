"""The wire of the shared gateway: who signed a request (ACS3-HMAC-SHA256), what it asks for, how an answer is written.

Facts, and where they come from:

signature: Alibaba Cloud help, "Request syntax and signature method V3". The canonical request is method, path, sorted
    query, the signed headers (`host`, `content-type` and all `x-acs-*` that are there; names in lower case), their
    names, and the digest of the body, which `x-acs-content-sha256` repeats; what is signed is the algorithm and the
    digest of that. `x-acs-date` may be 15 minutes off, a nonce may be used once.
secret: Alibaba Cloud help, Key Management Service, "GetSecretValue" (version 2016-01-20). Parameters may stand in the
    query or in a form; errors are JSON {Code, Message, RequestId, HostId, Recommend} with the code's HTTP status.
codes: Alibaba Cloud help, "Common error codes" of the API gateway (POP) and of KMS.

name: the same page: `SecretName` is the name or the ARN of a secret, and has to be the ARN for one of another account.

Guessed: in which order a request with two faults is judged, the HTTP status of `InvalidSecurityToken.*`, what is said
of an ARN of another region (that there is none), and that the answer to an ARN has the name alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, quote, urlsplit

from tests.kms import errors
from tests.kms.errors import ErrorReply, Refused
from tests.kms.protocol import CURRENT, MAX_SKEW, Call

ALGORITHM = "ACS3-HMAC-SHA256"
ACTION = "GetSecretValue"
VERSION = "2016-01-20"
JSON = "application/json;charset=utf-8"
ACCOUNT, OTHER_ACCOUNT = "1234567890123456", "6543210987654321"
_ARN = re.compile(r"acs:kms:(?P<region>[^:]+):(?P<account>[^:]+):secret/(?P<name>.+)")

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<id>[^,]+), ?SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]+)"
)

MISSING_DATE = ErrorReply(400, "MissingTimestamp", 'The input parameter "Timestamp" is mandatory for this request.')
INVALID_DATE = ErrorReply(400, "InvalidTimeStamp.Format", "Specified time stamp or date value is not well formatted.")
DATE_EXPIRED = ErrorReply(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
NONCE_USED = ErrorReply(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
MISSING_NONCE = ErrorReply(400, "MissingSignatureNonce", "SignatureNonce is mandatory for this action.")
INCOMPLETE_SIGNATURE = ErrorReply(
    400, "IncompleteSignature", "The request signature does not conform to the standards."
)
UNKNOWN_KEY_ID = ErrorReply(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
MISSING_TOKEN = ErrorReply(400, "MissingSecurityToken", "SecurityToken is mandatory for this action.")
MALFORMED_TOKEN = ErrorReply(400, "InvalidSecurityToken.Malformed", "Specified SecurityToken is malformed.")
MISMATCHED_TOKEN = ErrorReply(
    400, "InvalidSecurityToken.MismatchWithAccessKey", "Specified SecurityToken mismatch with the AccessKey."
)
TOKEN_EXPIRED = ErrorReply(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
UNKNOWN_ACTION = ErrorReply(
    404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method."
)
UNKNOWN_VERSION = ErrorReply(400, "InvalidVersion", "Specified parameter Version is not valid.")
MISSING_SECRET_NAME = ErrorReply(
    400, "MissingParameter", 'The parameter "SecretName" is needed but no value was provided.'
)


def signature_does_not_match(string_to_sign: str) -> ErrorReply:
    """From "codes": the gateway says what it would have signed."""
    return ErrorReply(
        400,
        "SignatureDoesNotMatch",
        f"Specified signature is not matched with our calculation. server string to sign is:{string_to_sign}",
    )


@dataclass(frozen=True)
class Grant:
    """Temporary credentials of a role, as the security token service knows them."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    expires: datetime
    account: str = ACCOUNT

    @property
    def expired(self) -> bool:
        """Whether they are no longer any good."""
        return self.expires <= datetime.now(timezone.utc)


def verify(
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    grants: Mapping[str, Grant],
    *,
    now: datetime | None = None,
    max_skew: timedelta = MAX_SKEW,
) -> str:
    """Check that a request is well-formed, fresh, and signed with credentials that were given out; return its nonce.

    `headers` are those of `protocol.headers_by_name`, `grants` by access key ID. Raises Refused.
    """
    if headers.get("x-acs-action") != ACTION:
        raise Refused(UNKNOWN_ACTION)
    if headers.get("x-acs-version") != VERSION:
        raise Refused(UNKNOWN_VERSION)
    if not headers.get("x-acs-signature-nonce"):
        raise Refused(MISSING_NONCE)
    _check_date(headers.get("x-acs-date", ""), now or datetime.now(timezone.utc), max_skew)
    said = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if not said:
        raise Refused(INCOMPLETE_SIGNATURE)
    grant = grants.get(said["id"])
    if grant is None:
        raise Refused(UNKNOWN_KEY_ID)
    _check_token(headers.get("x-acs-security-token", ""), grant, grants)
    text = string_to_sign(method, target, headers, said["headers"].split(";"), body)
    right = hmac.new(grant.access_key_secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(said["signature"], right):
        raise Refused(signature_does_not_match(text))
    return headers["x-acs-signature-nonce"]


def granted(headers: Mapping[str, str], grants: Mapping[str, Grant]) -> Grant:
    """Return the credentials with which a request, which has been verified, is signed."""
    said = _AUTHORIZATION.fullmatch(headers["authorization"])
    assert said is not None
    return grants[said["id"]]


def find_secret(name: str, grant: Grant, region: str) -> tuple[str, str]:
    """Return the account that a secret is of and its name there. Raises Refused where the caller may not read it.

    No account here lets another read its secrets, as a policy of theirs could.
    """
    full = _ARN.fullmatch(name)
    if not full:
        return grant.account, name
    if full["region"] != region:
        raise Refused(errors.RESOURCE_NOT_FOUND)
    if full["account"] != grant.account:
        raise Refused(errors.no_permission(name))
    return full["account"], full["name"]


def string_to_sign(method: str, target: str, headers: Mapping[str, str], signed: list[str], body: bytes) -> str:
    """Build what the client had to sign. Raises Refused when it left out what must be signed, or lied of its body."""
    needed = {name for name in headers if name.startswith("x-acs-") or name in ("host", "content-type")}
    if signed != sorted(signed) or not needed <= set(signed) or not set(signed) <= set(headers):
        raise Refused(INCOMPLETE_SIGNATURE)
    digest = hashlib.sha256(body).hexdigest()
    if headers.get("x-acs-content-sha256") != digest:
        raise Refused(signature_does_not_match("(of another body)"))
    parts = urlsplit(target)
    query = sorted(parse_qsl(parts.query, keep_blank_values=True))
    canonical = [
        method,
        parts.path or "/",
        "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query),
        *(f"{name}:{headers[name]}" for name in signed),
        "",
        ";".join(signed),
        digest,
    ]
    return f"{ALGORITHM}\n" + hashlib.sha256("\n".join(canonical).encode()).hexdigest()


def parse_request(target: str, body: bytes) -> Call:
    """Read what a GetSecretValue asks for. Raises Refused when it names no secret."""
    parameters = dict(parse_qsl(urlsplit(target).query) + parse_qsl(body.decode("utf-8", "replace")))
    if not parameters.get("SecretName"):
        raise Refused(MISSING_SECRET_NAME)
    return Call(
        secret_name=parameters["SecretName"],
        stage=parameters.get("VersionStage") or CURRENT,
        version_id=parameters.get("VersionId", ""),
    )


def write_response(call: Call, value: str, *, version_id: str = "", kind: str = "text") -> bytes:
    """Write an answer with a secret's value."""
    table = {
        "RequestId": str(uuid.uuid4()).upper(),
        "SecretName": call.secret_name,
        "SecretType": "Generic",
        "SecretData": value,
        "SecretDataType": kind,
        "VersionId": version_id,
        "VersionStages": {"VersionStage": [call.stage]},
        "CreateTime": "2024-01-01T00:00:00Z",
        "AutomaticRotation": "Disabled",
    }
    return json.dumps(table).encode()


def write_error(error: ErrorReply, host: str) -> bytes:
    """Write an error answer."""
    table = {
        "RequestId": str(uuid.uuid4()).upper(),
        "HostId": host,
        "Code": error.code,
        "Message": error.message,
        "Recommend": f"https://api.aliyun.com/troubleshoot?q={error.code}&product=Kms",
    }
    return json.dumps(table).encode()


def _check_date(text: str, now: datetime, max_skew: timedelta) -> None:
    if not text:
        raise Refused(MISSING_DATE)
    try:
        sent = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refused(INVALID_DATE) from None
    if abs(now - sent) > max_skew:
        raise Refused(DATE_EXPIRED)


def _check_token(token: str, grant: Grant, grants: Mapping[str, Grant]) -> None:
    if not token:
        raise Refused(MISSING_TOKEN)
    if token != grant.security_token:
        known = any(token == other.security_token for other in grants.values())
        raise Refused(MISMATCHED_TOKEN if known else MALFORMED_TOKEN)
    if grant.expired:
        raise Refused(TOKEN_EXPIRED)

"""The wire of the instance gateway: who signed a request, what it asks for, and how an answer is written."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from google.protobuf.message import DecodeError
from openapi_util.protobuf import api_pb2

from tests.kms import errors
from tests.kms.errors import ErrorReply, Refused

API_NAME = "GetSecretValue"
API_VERSION = "dkms-gcs-0.2"
SIGNATURE_METHOD = "RSA_PKCS1_SHA_256"
CONTENT_TYPE = "application/x-protobuf"
KEY_ID_HEADER = "x-kms-acccesskeyid"  # three c's: so the gateway and its SDKs spell it
CURRENT = "ACSCurrent"
PREVIOUS = "ACSPrevious"
MAX_SKEW = timedelta(minutes=15)


@dataclass(frozen=True)
class Secret:
    """A secret's values by version stage; `previous` exists after a rotation."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)

    def value(self, stage: str) -> str | None:
        """Return the value at a version stage."""
        return {CURRENT: self.current, PREVIOUS: self.previous}.get(stage)

    def version_id(self, stage: str) -> str:
        """Return the 32 digits that name the version at a stage; versions are counted from 1."""
        number = 2 if stage == CURRENT and self.previous is not None else 1
        return f"{number:032}"


@dataclass(frozen=True)
class Call:
    """What a request asks for, once it has proved who sent it."""

    secret_name: str
    stage: str
    version_id: str = ""


def headers_by_name(items: list[tuple[str, str]]) -> dict[str, str]:
    """Bring HTTP headers into the form in which they are signed: lower-case names, trimmed values."""
    return {name.lower(): value.strip() for name, value in items}


def verify(
    headers: Mapping[str, str],
    body: bytes,
    client_keys: Mapping[str, RSAPublicKey],
    *,
    now: datetime | None = None,
    max_skew: timedelta = MAX_SKEW,
) -> None:
    """Check that a request is well-formed, fresh and signed with a known client key.

    `headers` are those of `headers_by_name`, `client_keys` the public keys by KeyId. Raises Refused.
    """
    _check_form(headers)
    key_id = headers.get(KEY_ID_HEADER, "")
    if not key_id:
        raise Refused(errors.MISSING_KEY_ID)
    if key_id not in client_keys:
        raise Refused(errors.unknown_key_id(key_id))
    sent = _parse_date(headers.get("date", ""))
    if abs((now or datetime.now(timezone.utc)) - sent) > max_skew:
        raise Refused(errors.TIME_SKEWED)
    signature = _parse_authorization(headers.get("authorization", ""))
    if headers.get("content-sha256", "") != hashlib.sha256(body).hexdigest().upper():
        raise Refused(errors.SIGNATURE_NOT_MATCH)
    try:
        client_keys[key_id].verify(signature, string_to_sign(headers), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refused(errors.SIGNATURE_NOT_MATCH) from None


def string_to_sign(headers: Mapping[str, str]) -> bytes:
    """Build what the client had to sign for a POST to `/`."""
    lines = ["POST", headers["content-sha256"], headers["content-type"], headers["date"]]
    lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-kms-")]
    return "\n".join([*lines, "/"]).encode()


def parse_request(body: bytes) -> Call:
    """Read a GetSecretValueRequest. Raises Refused when it is none or names no secret."""
    message = api_pb2.GetSecretValueRequest()
    try:
        message.ParseFromString(body)
    except (DecodeError, UnicodeDecodeError):
        raise Refused(errors.INVALID_PARAMETER) from None
    if not message.SecretName:
        raise Refused(errors.INVALID_PARAMETER)
    return Call(
        secret_name=message.SecretName,
        stage=message.VersionStage or CURRENT,
        version_id=message.VersionId,
    )


def find_value(call: Call, secrets: Mapping[str, Secret]) -> str:
    """Look a secret's value up. Raises Refused when there is no such secret, stage or version."""
    secret = secrets.get(call.secret_name)
    value = secret.value(call.stage) if secret else None
    if secret is None or value is None:
        raise Refused(errors.RESOURCE_NOT_FOUND)
    if call.version_id not in ("", secret.version_id(call.stage)):
        raise Refused(errors.RESOURCE_NOT_FOUND)
    return value


def write_response(call: Call, value: str, *, version_id: str = "") -> bytes:
    """Write a GetSecretValueResponse."""
    message = api_pb2.GetSecretValueResponse(
        SecretName=call.secret_name,
        SecretType="Generic",
        SecretData=value,
        SecretDataType="text",
        VersionStages=[call.stage],
        VersionId=version_id,
        CreateTime="2024-01-01T00:00:00Z",
        RequestId=str(uuid.uuid4()),
    )
    return bytes(message.SerializeToString())


def write_error(reply: ErrorReply) -> bytes:
    """Write an Error."""
    message = api_pb2.Error(
        StatusCode=reply.status,
        ErrorCode=reply.code,
        ErrorMessage=reply.message,
        RequestId=str(uuid.uuid4()),
    )
    return bytes(message.SerializeToString())


def _check_form(headers: Mapping[str, str]) -> None:
    """Check what a request says about itself."""
    if headers.get("content-type") != CONTENT_TYPE:
        raise Refused(errors.unsupported_content_type(headers.get("content-type", "")))
    if headers.get("x-kms-apiname") != API_NAME:
        raise Refused(errors.invalid_api_name(headers.get("x-kms-apiname", "")))
    if headers.get("x-kms-apiversion") != API_VERSION:
        raise Refused(errors.invalid_api_version(headers.get("x-kms-apiversion", "")))
    if headers.get("x-kms-signaturemethod") != SIGNATURE_METHOD:
        raise Refused(errors.invalid_signature_method(headers.get("x-kms-signaturemethod", "")))


def _parse_date(text: str) -> datetime:
    """Read an RFC 1123 date; one that does not say its time zone is none."""
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):  # TypeError: Python 3.9
        raise Refused(errors.INVALID_DATE) from None
    if date.tzinfo is None:
        raise Refused(errors.INVALID_DATE)
    return date


def _parse_authorization(text: str) -> bytes:
    """Read `Bearer <base64 signature>`."""
    scheme, _, signature = text.partition(" ")
    try:
        decoded = base64.b64decode(signature, validate=True)
    except binascii.Error:
        raise Refused(errors.INVALID_AUTHORIZATION) from None
    if scheme != "Bearer" or not decoded:
        raise Refused(errors.INVALID_AUTHORIZATION)
    return decoded

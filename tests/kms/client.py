"""A client that can send what no SDK would; it shares no code with the server's side of the protocol."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
from datetime import datetime, timezone
from email.utils import format_datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from openapi_util.protobuf import api_pb2

from tests.kms.pki import ClientKey


def ask(endpoint: str, ca_pem: str, key: ClientKey, secret_name: str, stage: str = "") -> str:
    """Fetch a secret's value. Raises RuntimeError with the error's code for any other answer."""
    body = write_request(secret_name, stage)
    status, answer = exchange(connect(endpoint, ca_pem), sign(key, body), body)
    if status != 200:
        raise RuntimeError(read_error_code(answer))
    return read_value(answer)


def connect(endpoint: str, ca_pem: str, *, timeout: float = 5) -> http.client.HTTPSConnection:
    """Prepare a connection that trusts a CA and nobody else; `timeout` in seconds, for each wait."""
    context = ssl.create_default_context(cadata=ca_pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 and newer do unasked
    return http.client.HTTPSConnection(endpoint, context=context, timeout=timeout)


def exchange(connection: http.client.HTTPSConnection, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Send a request and return the answer's status and body; the connection stays usable."""
    connection.request("POST", "/", body=body, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def write_request(secret_name: str, stage: str = "") -> bytes:
    """Write a GetSecretValueRequest."""
    message = api_pb2.GetSecretValueRequest(SecretName=secret_name, VersionStage=stage)
    return bytes(message.SerializeToString())


def sign(key: ClientKey, body: bytes, *, date: datetime | None = None, digest: str | None = None) -> dict[str, str]:
    """Return the headers of a signed request; a false date or digest is signed like a true one."""
    sent = format_datetime(date or datetime.now(timezone.utc), usegmt=True)
    digest = digest or hashlib.sha256(body).hexdigest().upper()
    signed = (
        f"POST\n{digest}\napplication/x-protobuf\n{sent}\n"
        f"x-kms-acccesskeyid:{key.key_id}\n"
        "x-kms-apiname:GetSecretValue\n"
        "x-kms-apiversion:dkms-gcs-0.2\n"
        "x-kms-signaturemethod:RSA_PKCS1_SHA_256\n"
        "/"
    )
    signature = key.private_key().sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {
        "accept": "application/x-protobuf",
        "content-type": "application/x-protobuf",
        "content-sha256": digest,
        "date": sent,
        "x-kms-acccesskeyid": key.key_id,
        "x-kms-apiname": "GetSecretValue",
        "x-kms-apiversion": "dkms-gcs-0.2",
        "x-kms-signaturemethod": "RSA_PKCS1_SHA_256",
        "authorization": f"Bearer {base64.b64encode(signature).decode()}",
    }


def read_value(body: bytes) -> str:
    """Read the value from a GetSecretValueResponse."""
    message = api_pb2.GetSecretValueResponse()
    message.ParseFromString(body)
    return str(message.SecretData)


def read_error_code(body: bytes) -> str:
    """Read the code from an Error."""
    message = api_pb2.Error()
    message.ParseFromString(body)
    return str(message.ErrorCode)

"""The errors of an instance gateway, as its makers document them.

Facts, and where they come from:

codes: Alibaba Cloud help, Key Management Service, KMS Instance API, "Common error codes"
    (developer-reference/common-error-codes-1; the table was read from an older copy of the page). An error
    is a protobuf `Error{StatusCode, ErrorCode, ErrorMessage, RequestId}` in the body of a response with the
    same HTTP status. A wrong signature is 401 `SignatureNotMatch` (not the `SignatureDoesNotMatch` of other
    services), an unknown KeyId is 404 `Unauthorized`, a missing one 400 `MissingParameter`.
secret: Alibaba Cloud help, KMS Instance API, "GetSecretValue" (developer-reference/getsecretvalue-2).
    `VersionStage` defaults to `ACSCurrent`; the page's own error table has a 404 `Forbidden.` code. That it
    is `Forbidden.ResourceNotFound`, "Resource not found", is seen in public programs that handle this error
    from the shared gateway.
throttling: Alibaba Cloud help, knowledge_detail/444042. 429 `Rejected.Throttling`, "QPS Limit Exceeded".
    "Common error codes" does not list it, but the SDK (`openapi_util.client`, is_retry_err) retries on this
    code and no other.
java: `KmsErrorCodeTransferUtils` in Alibaba's own kms-20160120 transfer client for Java knows two texts
    from an instance: `InvalidParam` with "The Param Date is invalid." and with "The Param Authorization is
    invalid.".

Not documented, and therefore guessed here: the answer to a body that does not fit its content-sha256
(`SignatureNotMatch`, since the digest is part of what is signed), to an unknown version of a known secret
(`Forbidden.ResourceNotFound`), and in which order a request with two faults is judged.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorReply:
    """What an error answer says."""

    status: int
    code: str
    message: str


class Refused(Exception):
    """A request is at fault; holds the answer it gets."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(f"{reply.status} {reply.code}: {reply.message}")
        self.reply = reply


# From "codes":
INVALID_DATE = ErrorReply(400, "InvalidParam", "The Param Date is invalid.")
MISSING_KEY_ID = ErrorReply(
    400, "MissingParameter", "Parameter x-kms-acccesskeyid does not exist in http header or body."
)
TIME_SKEWED = ErrorReply(400, "RequestTimeTooSkewed", "Request time exceeds server time more than 15 minutes.")
INVALID_PARAMETER = ErrorReply(400, "InvalidParameter", "The specified parameter is not valid.")
SIGNATURE_NOT_MATCH = ErrorReply(401, "SignatureNotMatch", "Signature is not matched.")
INTERNAL_FAILURE = ErrorReply(500, "InternalFailure", "Internal Failure.")
KEY_DISABLED = ErrorReply(409, "Rejected.Disabled", "The request was rejected because the key state is Disabled.")
PENDING_DELETION = ErrorReply(
    409, "Rejected.PendingDeletion", "The request was rejected because the key state is PendingDeletion."
)
KEY_NOT_FOUND = ErrorReply(404, "Forbidden.KeyNotFound", "The specified key does not exist.")
SERVICE_UNAVAILABLE = ErrorReply(503, "ServiceUnavailableTemporary", "Service Unavailable Temporary.")

# From "java":
INVALID_AUTHORIZATION = ErrorReply(400, "InvalidParam", "The Param Authorization is invalid.")

# From "secret":
RESOURCE_NOT_FOUND = ErrorReply(404, "Forbidden.ResourceNotFound", "Resource not found")

# From "throttling":
THROTTLED = ErrorReply(429, "Rejected.Throttling", "QPS Limit Exceeded")

# Not documented for this API; seen in quotas of others:
QUOTA_EXCEEDED = ErrorReply(403, "QuotaExceeded", "The quota of requests is used up.")


def invalid_api_name(name: str) -> ErrorReply:
    """From "codes": an API this gateway does not have."""
    return ErrorReply(400, "InvalidApiName", f'The ApiName "{name}" is invalid.')


def invalid_api_version(version: str) -> ErrorReply:
    """From "codes": a version other than `dkms-gcs-0.2`, or none."""
    return ErrorReply(400, "InvalidApiVersion", f'The ApiVersion "{version}" is invalid.')


def invalid_signature_method(method: str) -> ErrorReply:
    """From "codes": a method other than `RSA_PKCS1_SHA_256`, or none."""
    shown = f' message:"{method}".' if method else ""
    return ErrorReply(400, "InvalidParam", f"The Param x-kms-signaturemethod is invalid.{shown}")


def unsupported_content_type(content_type: str) -> ErrorReply:
    """From "codes": a body that does not say it is protobuf."""
    return ErrorReply(415, "InvalidContentType", f'Content-Type "{content_type}" is unsupported.')


def unknown_key_id(key_id: str) -> ErrorReply:
    """From "codes": a KeyId that belongs to no application access point."""
    return ErrorReply(404, "Unauthorized", f'The AccessKey ID "{key_id}" does not exist in our records.')


def no_permission(secret_name: str) -> ErrorReply:
    """From "codes": the application access point's policy does not allow this secret."""
    return ErrorReply(
        403,
        "Forbidden.NoPermission",
        f'This operation for "{secret_name}" is forbidden by permission system.',
    )

"""What may be quoted of an answer from outside: only what is on a list.

An answer may be a secret by mistake: if a gateway sends a success with the status of an error, the secret is where the
message would be. So no message, request ID or header is ever quoted. An error code is quoted if it consists of words
that error codes are made of.
"""

from __future__ import annotations

import re

_LONGEST_CODE = 80  # characters
_CODE = re.compile(r"[A-Z][A-Za-z]*(\.[A-Z][A-Za-z]*)*")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*")

# Of the codes in Alibaba Cloud help: "Common error codes" of the KMS Instance API, "Error codes" of the KMS API,
# "Common error codes" of the API gateway, "AssumeRoleWithOIDC"; and of the metadata service's "Code".
_WORD_LIST = """
    API Abort Access Account Action Already Api Arn Assume Audience Auth Authentication Authorization Authorized
    Bandwidth Be Body Busy By CMK Call Cannot Certificate Cipher Client Code Conflict Connection Content Control
    Credential Credentials Daily Data Date Decrypt Dedicated Default Deleted Deletion Denied Digest Disabled
    Does Domain ECS Empty Enabled Encoding Endpoint Enough Entity Error Exceed Exceeded Exist Exists Expired
    External Fail Failed Failure Fingerprint Flow Forbidden Format Found Frequent From Gateway HTTP HTTPS Header
    Host ID IP Id Identity Illegal In Incomplete Instance Internal Invalid Is Issuer KMS Key Kms Length Limit
    Lock Malformed Manager Match Material Method Mismatch Missing Name Network No Nonce Not Number OIDC
    Operation Or Order Param Parameter Parameters Password Pending Permission Policy Primary Principal Protect
    Protocol Provider Public QPS Quota RAM Ram Rate Region Rejected Request Required Resource Response
    Restricted Role Rotation SSL STS Secret Security Server Service Signature Size Skewed Specified Stage Stamp
    State Status String Sts Subscription Supported System TLS Temporary Throttled Throttling Time Timeout
    Timestamp To Token Too Trail Type URL Unauthorized Unavailable Unknown Unsupported Used User VPC Value
    Version Vpc With
"""
_WORDS = frozenset(_WORD_LIST.split())


def code(text: object) -> str:
    """Return an error code that may be quoted, "" for any other text."""
    found = str(text or "")
    if len(found) > _LONGEST_CODE or not _CODE.fullmatch(found):
        return ""
    return found if all(word in _WORDS for word in _WORD.findall(found)) else ""


_REASON = re.compile(r"[A-Z0-9_]{1,60}")


def tls_reason(text: object) -> str:
    """Return OpenSSL's reason of a failed connection in readable form; "" for any other text."""
    found = str(text or "")
    return found.lower().replace("_", " ") if _REASON.fullmatch(found) else ""

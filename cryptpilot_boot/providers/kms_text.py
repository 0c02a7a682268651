"""Checks for the keys of `[encrypt.kms]`: each returns the complaint, "" for none."""

from __future__ import annotations

import re

from cryptpilot_boot.providers import client_key_text as client_key_files
from cryptpilot_boot.providers import pem
from cryptpilot_boot.text import describe, unseen

# They become parts of a path and of a host name: no other characters, whatever their origin.
ROLE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
REGION_ID = re.compile(r"[a-z0-9](-?[a-z0-9]){0,39}")
# Names of secrets (KMS API reference, CreateSecret), and full names, which include the account.
SECRET_NAME = re.compile(r"[A-Za-z0-9_/+=.@-]{1,192}")
SECRET_ARN = re.compile(
    rf"acs:kms:(?P<region>{REGION_ID.pattern}):(?P<account>[0-9]{{1,32}}):secret/(?P<name>{SECRET_NAME.pattern})"
)

# A label of the instance's host name.
_INSTANCE_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def client_key(text: str) -> str:
    """Check the content of a client key file. Never quotes it."""
    complaint = client_key_files.complaint(text)
    return f"must be the content of the clientKey_****.json file: {complaint}" if complaint else ""


def certificates(text: str) -> str:
    """Check the CA chain of an instance. Never quotes it: it may be another file by mistake."""
    complaint = pem.complaint(text)
    return f"must be the content of the PrivateKmsCA_****.pem file: {complaint}" if complaint else ""


def authority(text: str) -> str:
    """Check the only trusted CA. Never quotes it."""
    complaint = pem.complaint(text)
    return f"must be PEM: {complaint}" if complaint else ""


def secret_name(text: str) -> str:
    """Check the name of a secret in an instance. It is not documented whether its gateway accepts a full name."""
    full = SECRET_ARN.fullmatch(text)
    if full:
        return f'must be the name alone with a client key: "{full["name"]}"'
    return "" if SECRET_NAME.fullmatch(text) else _odd_name(text)


def secret_name_or_arn(text: str) -> str:
    """Check the name, or the full name, of a secret."""
    if SECRET_NAME.fullmatch(text) or SECRET_ARN.fullmatch(text):
        return ""
    if text.startswith("acs:"):
        return 'must be "acs:kms:<region>:<account, in digits>:secret/<name>", or the name alone'
    return _odd_name(text)


def _odd_name(text: str) -> str:
    if text != text.strip():
        return "must have no white space at its beginning or end (a line end is white space, too)"
    char = unseen(text)
    return "must be the name of a secret: 1 to 192 letters, digits and _/+=.@-" + (
        f"; it holds {describe(char)}" if char else ""
    )


def instance_id(text: str) -> str:
    """Check the ID of a KMS instance."""
    return "" if _INSTANCE_ID.fullmatch(text) else "must be the ID of a KMS instance, such as kst-..."


def role_name(text: str) -> str:
    """Check the name of a RAM role."""
    return "" if ROLE_NAME.fullmatch(text) else "must be the name of a RAM role: up to 64 letters, digits and ._-"


def region_id(text: str) -> str:
    """Check the ID of a region."""
    return "" if REGION_ID.fullmatch(text) else "must be the ID of a region, such as cn-hangzhou"

"""Fetch a secret with a token of an identity provider, with the official SDK and its own credentials client.

Runs in the environment where the SDK is installed as its makers pin it, and so uses nothing of this package. A job and
its answer, as `sdk_jobs.py` has them:

    {"region", "endpoint", "sts_endpoint", "role", "provider", "token_file", "ca_file", "secret"}
    {"value"} or {"error", "message"}

Its credentials client trusts what OpenSSL trusts by default, and so what SSL_CERT_FILE names.
"""

from __future__ import annotations

from typing import Any

from alibabacloud_credentials.client import Client as CredentialClient
from alibabacloud_credentials.models import Config as CredentialConfig
from alibabacloud_kms20160120.client import Client
from alibabacloud_kms20160120.models import GetSecretValueRequest
from alibabacloud_tea_openapi.models import Config
from alibabacloud_tea_util.models import RuntimeOptions


def fetch(job: dict[str, Any]) -> dict[str, object]:
    """Make the calls; what they raise is part of what is under test."""
    try:
        credential = CredentialClient(
            CredentialConfig(
                type="oidc_role_arn",
                role_arn=job["role"],
                oidc_provider_arn=job["provider"],
                oidc_token_file_path=job["token_file"],
                role_session_name="test",
                sts_endpoint=job["sts_endpoint"],
            )
        )
        client = Client(
            Config(credential=credential, region_id=job["region"], endpoint=job["endpoint"], ca=job["ca_file"])
        )
        answer = client.get_secret_value_with_options(
            GetSecretValueRequest(secret_name=job["secret"]), RuntimeOptions()
        ).body
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"value": answer.secret_data}

"""Fetch a secret through a gateway, with a role, with the official SDK and its own credentials client.

Runs in the environment where the SDK is installed as its makers pin it, in a network where the metadata service and the
gateway are at their real addresses, and so uses nothing of this package. A job and its answer, as `sdk_jobs.py` has
them:

    {"region", "endpoint", "role", "token_only", "ca_file", "secret", "stage"}
    {"value", "stages", "kind"} or {"error", "code", "message"}

role may be "": the credentials client finds it. token_only: it must not go on without a token, which it can.
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
    """Make the call; what it raises is part of what is under test."""
    try:
        credential = CredentialClient(
            CredentialConfig(
                type="ecs_ram_role", role_name=job["role"] or None, disable_imds_v1=bool(job["token_only"])
            )
        )
        client = Client(
            Config(credential=credential, region_id=job["region"], endpoint=job["endpoint"], ca=job["ca_file"])
        )
        request = GetSecretValueRequest(secret_name=job["secret"], version_stage=job["stage"])
        answer = client.get_secret_value_with_options(request, RuntimeOptions()).body
    except Exception as error:
        return {"error": type(error).__name__, "code": str(getattr(error, "code", "")), "message": str(error)}
    return {
        "value": answer.secret_data,
        "stages": answer.version_stages.version_stage,
        "kind": answer.secret_data_type,
    }

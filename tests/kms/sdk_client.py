"""Fetch a secret with the official SDK, exactly as its documentation says.

Runs in the environment where the SDK is installed as its makers pin it, and so uses nothing of this package. A job
and its answer, as `sdk_jobs.py` has them:

    {"endpoint", "ca_file", "client_key", "password", "secret", "stage", "retry"}
    {"value", "stages"} or {"error", "code", "message"}
"""

from __future__ import annotations

from openapi.models import Config
from openapi_util.models import RuntimeOptions
from sdk.client import Client
from sdk.models import GetSecretValueRequest


def fetch(job: dict[str, str]) -> dict[str, object]:
    """Make the call; what it raises is part of what is under test."""
    try:
        client = Client(
            Config(
                protocol="https",
                endpoint=job["endpoint"],
                ca_file_path=job["ca_file"],
                client_key_content=job["client_key"],
                password=job["password"],
            )
        )
        request = GetSecretValueRequest(secret_name=job["secret"], version_stage=job["stage"])
        options = RuntimeOptions(autoretry=bool(job["retry"]))
        answer = client.get_secret_value_with_options(request, options)
    except Exception as error:
        code = str(getattr(error, "code", ""))
        return {"error": type(error).__name__, "code": code, "message": str(error)}
    return {"value": answer.secret_data, "stages": answer.version_stages}

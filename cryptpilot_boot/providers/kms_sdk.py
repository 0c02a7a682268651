"""The official SDK of instance gateways, alibabacloud-dkms-gcs 1.0.2."""

from __future__ import annotations

from cryptpilot_boot.providers import absent, tea  # noqa: F401 - tea is how the SDK asks

# PKCS#12 through an interface that current pyOpenSSL no longer has; providers/client_key.py opens it.
absent.stand_in("OpenSSL")

with absent.without_signatures():
    from openapi.models import Config
    from openapi_util.models import RuntimeOptions
    from sdk.client import Client
    from sdk.models import GetSecretValueRequest

__all__ = ["Client", "Config", "GetSecretValueRequest", "RuntimeOptions"]

"""The official SDK of instance gateways, alibabacloud-dkms-gcs 1.0.2."""

from __future__ import annotations

from cryptpilot_boot.providers import absent, tea  # noqa: F401 - tea is how the SDK asks

# It opens PKCS#12 by an interface that pyOpenSSL no longer has; providers/client_key.py opens it here.
absent.stand_in("OpenSSL")

with absent.without_signatures():
    from openapi.models import Config
    from openapi_util.models import RuntimeOptions
    from sdk.client import Client
    from sdk.models import GetSecretValueRequest

__all__ = ["Client", "Config", "GetSecretValueRequest", "RuntimeOptions"]

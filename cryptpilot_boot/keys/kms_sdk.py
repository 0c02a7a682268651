"""The official SDK of instance gateways, alibabacloud-dkms-gcs 1.0.2."""

from __future__ import annotations

from cryptpilot_boot.keys import tea

# PKCS#12 through an interface that current pyOpenSSL no longer has; keys/kms.py opens it.
tea.stand_in("OpenSSL")

from openapi.models import Config  # noqa: E402
from openapi_util.models import RuntimeOptions  # noqa: E402
from sdk.client import Client  # noqa: E402
from sdk.models import GetSecretValueRequest  # noqa: E402

__all__ = ["Client", "Config", "GetSecretValueRequest", "RuntimeOptions"]

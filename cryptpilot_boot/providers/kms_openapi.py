"""The official SDK of the shared gateway, alibabacloud-kms20160120 2.4.0."""

from __future__ import annotations

from cryptpilot_boot.providers import absent, tea

absent.stand_in(
    # All ways to get credentials, and a thread that renews them: 76 modules, 20 ms of imports. Here there is one way,
    # used for each request: providers/metadata.py.
    "alibabacloud_credentials",
    "alibabacloud_credentials.client",
    "alibabacloud_credentials.models",
    # an older signature, and gateways of other products
    "alibabacloud_gateway_pop",
    "alibabacloud_gateway_pop.client",
    "alibabacloud_gateway_spi",
    "alibabacloud_gateway_spi.client",
    "alibabacloud_gateway_spi.models",
    # answers that are not JSON
    "alibabacloud_tea_openapi.websocket_utils",
    "darabonba.utils.xml",
    "darabonba.websocket",
)

with absent.without_signatures():
    from alibabacloud_kms20160120.client import Client
    from alibabacloud_kms20160120.models import GetSecretValueRequest
    from alibabacloud_tea_openapi.models import Config, OpenApiRequest, Params
    from alibabacloud_tea_util.models import RuntimeOptions
    from darabonba.core import DaraCore

__all__ = ["Client", "Config", "GetSecretValueRequest", "OpenApiRequest", "Params", "RuntimeOptions"]

# This SDK is based on darabonba-core, a second edition of Tea.
DaraCore._get_session = staticmethod(tea.session)

"""The official SDK, and what it takes to run it well in an initrd.

Source of the facts: alibabacloud-dkms-gcs 1.0.2 and alibabacloud-tea 0.4.3, pinned in requirements/agent.lock.
"""

from __future__ import annotations

import os
import ssl
import sys
import types

# Imported at the top of SDK modules, for calls never made here: asynchronous requests (half of the SDK's import
# time), and PKCS#12 through an interface that current pyOpenSSL no longer has. The frozen agent carries neither.
_NEVER_CALLED = {"aiohttp": (), "OpenSSL": ("crypto",)}

for _name, _attributes in _NEVER_CALLED.items():
    _module = types.ModuleType(_name)
    for _attribute in _attributes:
        setattr(_module, _attribute, None)
    sys.modules.setdefault(_name, _module)

# With DEBUG=sdk in its environment the SDK writes requests and answers, secrets included, to standard error.
os.environ.pop("DEBUG", None)

from openapi.models import Config  # noqa: E402
from openapi_util.models import RuntimeOptions  # noqa: E402
from sdk.client import Client  # noqa: E402
from sdk.models import GetSecretValueRequest  # noqa: E402
from Tea.core import TeaCore, _TLSAdapter  # noqa: E402
from Tea.exceptions import TeaException  # noqa: E402

__all__ = ["Client", "Config", "GetSecretValueRequest", "RuntimeOptions", "TeaException"]


def _adapter_without_public_cas(prefix: str, tls_min_version: str | None = None) -> object:  # noqa: ARG001
    """Take the place of TeaCore.get_adapter, whose TLS context trusts every public CA beside the private one.

    The instance's certificate is signed by a private CA, and whoever else can have a certificate issued for its
    name is not to be believed. The private CA itself is added by `requests`, from the path given as ca_file_path.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _TLSAdapter(ssl_context=context)


TeaCore.get_adapter = staticmethod(_adapter_without_public_cas)

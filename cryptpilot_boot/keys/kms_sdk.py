"""The official SDK, and what it takes to run it well in an initrd.

Source of the facts: alibabacloud-dkms-gcs 1.0.2 and alibabacloud-tea 0.4.3, pinned in requirements/agent.lock.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
import types
from typing import TYPE_CHECKING, Any

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
from urllib3.exceptions import ProtocolError, ReadTimeoutError  # noqa: E402

from cryptpilot_boot.keys.kms_errors import LONGEST_ANSWER, BrokenOff, TooLong  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Client", "Config", "GetSecretValueRequest", "RuntimeOptions", "TeaException"]


class _Adapter(_TLSAdapter):  # type: ignore[misc]
    """What `requests` sends through, but that no answer is longer, or takes longer, than it may."""

    def send(self, request: Any, **options: Any) -> Any:
        response = super().send(request, **options)
        _, seconds = options["timeout"]
        response.raw = _Bounded(response.raw, seconds)
        return response


class _Bounded:
    """The body of an answer. The time limit of `requests` is for each piece of it, however small."""

    def __init__(self, raw: Any, seconds: float) -> None:
        self._raw = raw
        self._moment = time.monotonic() + seconds

    def stream(self, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
        room = LONGEST_ANSWER
        try:
            while piece := self._raw.read1(min(amount, room + 1), decode_content=decode_content):
                room -= len(piece)
                if room < 0:
                    raise TooLong
                if time.monotonic() > self._moment:
                    raise BrokenOff
                yield piece
        except (ProtocolError, ReadTimeoutError):
            raise BrokenOff from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _adapter_without_public_cas(prefix: str, tls_min_version: str | None = None) -> object:  # noqa: ARG001
    """Take the place of TeaCore.get_adapter, whose TLS context trusts every public CA beside the private one.

    The instance's certificate is signed by a private CA, and whoever else can have a certificate issued for its
    name is not to be believed. The private CA itself is added by `requests`, from the path given as ca_file_path.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _Adapter(ssl_context=context)


TeaCore.get_adapter = staticmethod(_adapter_without_public_cas)

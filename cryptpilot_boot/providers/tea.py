"""The common basis of both official SDKs, and what it needs to run well in an initrd.

Source of the facts: alibabacloud-tea 0.4.3 and darabonba-core 1.0.9, pinned in requirements/agent.lock.
"""

from __future__ import annotations

import functools
import os
import ssl
import time
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.providers import absent

# With DEBUG=sdk in the environment, the SDKs write requests and answers to standard error, with secrets.
os.environ.pop("DEBUG", None)


# Asynchronous requests: more than half of the SDKs' import time, for functions that are never called.
absent.stand_in("aiohttp", "asyncio")

from requests import Session, codes  # noqa: E402
from Tea.core import TeaCore, _TLSAdapter  # noqa: E402
from Tea.exceptions import TeaException  # noqa: E402
from urllib3.exceptions import ProtocolError, ReadTimeoutError  # noqa: E402

from cryptpilot_boot.providers.kms_transport import (  # noqa: E402
    LONGEST_ANSWER,
    AnswerTooLong,
    BrokenOff,
    NotAnAnswer,
    Redirected,
    Throttled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TeaException", "session"]


# Content types of a gateway, for errors too; all others are from a server before it.
_ANSWERS = ("application/json", "application/x-protobuf")
_ERRORS = range(400, 600)


class _Adapter(_TLSAdapter):  # type: ignore[misc]
    """An adapter of `requests` that limits the length and the time of an answer.

    It ignores proxies of the environment. At boot there is no such environment, and a command that works by hand has to
    work at boot.
    """

    def send(self, request: Any, **options: Any) -> Any:
        response = super().send(request, **{**options, "proxies": {}})
        if response.is_redirect:
            raise Redirected
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        # the SDKs take any status below 400 for an answer, even a partial or cached one
        if response.status_code != codes.ok and response.status_code not in _ERRORS:
            raise NotAnAnswer
        if response.status_code == codes.too_many_requests and kind not in _ANSWERS:
            raise Throttled
        _, seconds = options["timeout"]
        response.raw = _Bounded(response.raw, seconds)
        return response


class _Bounded:
    """The body of an answer. The time limit of `requests` applies to each piece only."""

    def __init__(self, raw: Any, seconds: float) -> None:
        self._raw = raw
        self._moment = time.monotonic() + seconds

    def stream(self, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
        room = LONGEST_ANSWER
        try:
            while piece := self._raw.read1(min(amount, room + 1), decode_content=decode_content):
                room -= len(piece)
                if room < 0:
                    raise AnswerTooLong
                if time.monotonic() > self._moment:
                    raise BrokenOff
                yield piece
        except (ProtocolError, ReadTimeoutError):
            raise BrokenOff from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def session(
    session_key: str,
    protocol: str,  # noqa: ARG001
    tls_min_version: str | None = None,  # noqa: ARG001
    verify: object = True,
    pool_size: int | None = None,  # noqa: ARG001
) -> Session:
    """Replace TeaCore._get_session, whose sessions trust every public CA besides the one that is given.

    Its sessions also keep trusting the CAs of earlier requests to the same gateway. Here each gateway and CA has its
    own session. `requests` adds the CA itself, from the path in `verify`.
    """
    return _session(session_key, str(verify))


@functools.cache
def _session(gateway: str, authorities: str) -> Session:  # noqa: ARG001 - they are what it is kept by
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    made = Session()
    del made.adapters["http://"]  # nothing is ever sent unencrypted
    made.mount("https://", _Adapter(ssl_context=context))
    return made


TeaCore._get_session = staticmethod(session)

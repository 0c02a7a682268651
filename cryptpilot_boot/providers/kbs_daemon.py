"""The confidential data hub as a daemon, asked at its socket.

Source of the facts: confidential-containers/guest-components, confidential-data-hub/README.md, and its
protos/confidential-data-hub/api.proto.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.passphrase import SecretBuffer
from cryptpilot_boot.providers import kbs_errors, kbs_value, ttrpc
from cryptpilot_boot.providers.kbs import DAEMON_UNIT
from cryptpilot_boot.system.wait import Changes, Deadline

if TYPE_CHECKING:
    import socket

    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.kbs import KbsDaemon
    from cryptpilot_boot.providers.provider import Ask

_SERVICE, _METHOD = "api.GetResourceService", "GetResource"
LONGEST_WAIT = 10.0  # seconds to wait for its socket before an error
_FIRST_PAUSE = 0.01  # seconds
_LONGEST_PAUSE = 1.0
_BUSY_PAUSE = 0.1
_URI, _RESOURCE = 1, 1  # fields of GetResourceRequest and GetResourceResponse


def prepare(kbs: KbsDaemon) -> Ask:
    """Return what asks the daemon for the resource."""
    resource = kbs_errors.Resource(kbs.key_uri, "its KBS")
    path = kbs.socket_path

    def ask(timeout: float) -> Passphrase:
        deadline = Deadline(min(timeout, kbs_value.LONGEST_TRY))
        with SecretBuffer(ttrpc.LONGEST) as buffer, contextlib.ExitStack() as stack:
            try:
                connection = _connected(stack, path, deadline)
                answer = ttrpc.call(
                    connection, _SERVICE, _METHOD, ttrpc.text(_URI, kbs.key_uri.encode()), buffer, deadline
                )
                return kbs_value.passphrase(ttrpc.held(answer, _RESOURCE), resource)
            except ttrpc.Refused as error:
                raise kbs_errors.refused(error, resource, path) from None
            except ttrpc.TooLong:
                raise kbs_value.too_long(resource) from None
            except ttrpc.Broken:
                raise KeyFetchError(
                    f"what listens at {path} does not speak ttrpc",
                    "cdh_socket must be that of the confidential data hub, in its edition for ttrpc",
                ) from None
            except TimeoutError:
                raise KeyFetchError(
                    f"the confidential data hub at {path} did not answer within {deadline.total:.0f} s",
                    f"see what it waits for: journalctl -u {DAEMON_UNIT}",
                    retryable=True,
                ) from None
            except (ttrpc.Closed, ConnectionError):
                raise KeyFetchError(
                    f"the confidential data hub at {path} closed the connection in the middle of its answer",
                    f"see why it ended: journalctl -u {DAEMON_UNIT}",
                    retryable=True,
                ) from None

    return ask


def _connected(stack: contextlib.ExitStack, path: str, deadline: Deadline) -> socket.socket:
    """Connect to the daemon. It may not have started yet, so this waits for its socket."""
    wait = Deadline(min(LONGEST_WAIT, deadline.left()))
    pause = _LONGEST_PAUSE
    with Changes(directory=Path(path).parent) as changes:
        while True:
            try:
                return stack.enter_context(ttrpc.connected(path, deadline))
            except FileNotFoundError:
                pause = _LONGEST_PAUSE
            except ConnectionRefusedError:
                # A socket exists a moment before a process listens, which no event announces; or it is left over.
                pause = _FIRST_PAUSE if pause == _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            except BlockingIOError:
                # Its queue of connections is full: it runs. See connect(2), EAGAIN.
                if deadline.over:
                    raise TimeoutError from None
                changes.sleep(min(_BUSY_PAUSE, deadline.left()))
                continue
            except PermissionError as error:
                raise KeyFetchError(
                    f"the socket {path} is not the confidential data hub's: {error.strerror or error}",
                    "what another user says is no key: see who listens there, with ss -xlp",
                ) from None
            except TimeoutError:
                raise
            except OSError as error:
                raise KeyFetchError(
                    f"there is no confidential data hub at {path}: {os.strerror(error.errno or 0)}", "check cdh_socket"
                ) from None
            changes.sleep(min(pause, wait.left()))
            if wait.over:
                raise KeyFetchError(
                    f"there is no confidential data hub at {path}, and none came within {wait.total:.0f} s",
                    f"start it: systemctl start {DAEMON_UNIT}; or check cdh_socket",
                    retryable=True,
                )

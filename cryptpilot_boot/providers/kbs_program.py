"""The confidential data hub as a program that is run for one answer: its one-shot edition.

Source of the facts: confidential-containers/guest-components, confidential-data-hub: README.md, hub/src/config.rs,
hub/src/bin/cdh-oneshot.rs.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.errors import KeyFetchError, ProgramError
from cryptpilot_boot.passphrase import SecretBuffer
from cryptpilot_boot.providers import kbs_errors, kbs_value, program
from cryptpilot_boot.providers.kbs import PROGRAM
from cryptpilot_boot.system import private, programs
from cryptpilot_boot.system.run import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.providers.kbs import Kbs
    from cryptpilot_boot.providers.provider import Ask
    from cryptpilot_boot.system.run import Ended

_LONGEST_TEXT = 2 * kbs_value.LONGEST
_SOCKET = "unix:///run/confidential-containers/cdh.sock"  # it does not listen, and requires the key
_SLOW = "see whether the KBS and the attestation agent answer: docs/kbs.md, Troubleshooting"
_USAGE = 2  # the exit status for unknown options
_ONE_SHOT = "it must be the one-shot edition of the guest components (ONE_SHOT=true)"


def require_usable() -> None:
    """Raise ProgramError if the program is missing or cannot be run."""
    if fault := programs.fault(PROGRAM):
        raise ProgramError(fault.what, f"{fault.hint}; {_ONE_SHOT}")


def prepare(kbs: Kbs) -> Ask:
    """Return what runs the program to get the resource."""
    resource = kbs_errors.Resource(kbs.key_uri, f"the KBS at {kbs.kbs_url}")

    def ask(timeout: float) -> Passphrase:
        seconds = min(timeout, kbs_value.LONGEST_TRY)
        with SecretBuffer(_LONGEST_TEXT) as buffer:
            try:
                require_usable()
                with _configuration(kbs) as path:
                    command = [PROGRAM, "-c", str(path), "get-resource", "--resource-uri", kbs.key_uri]
                    ended = read_secret(command, buffer, timeout=seconds)
            except ProgramError as error:
                raise KeyFetchError(error.what, error.hint) from None
            except OSError as error:
                raise KeyFetchError(
                    f"{PROGRAM} cannot be given its configuration: {error.strerror} ({error.filename})",
                    f"see what is wrong with {paths.RUN}",
                ) from None
            _require_success(ended, buffer, resource, seconds)
            return _decoded(buffer.reveal(), resource)

    return ask


@contextlib.contextmanager
def _configuration(kbs: Kbs) -> Iterator[Path]:
    """Write the configuration of the program, for as long as it runs: the KBS, and its CA. No secret is in it.

    The suffix tells the program the format. Raises OSError.
    """
    # with the characters that are permitted here, a JSON string is a TOML string
    lines = [f"socket = {json.dumps(_SOCKET)}", "[kbc]", 'name = "cc_kbc"', f"url = {json.dumps(kbs.kbs_url)}"]
    if kbs.kbs_root_cert is not None:
        lines.append(f"kbs_cert = {json.dumps(kbs.kbs_root_cert)}")
    path = private.directory(paths.KBS) / f"{os.getpid()}-{threading.get_ident()}.toml"
    try:
        private.write(path, "\n".join([*lines, ""]))
        yield path
    finally:
        path.unlink(missing_ok=True)


def _require_success(ended: Ended, buffer: SecretBuffer, resource: kbs_errors.Resource, seconds: float) -> None:
    """Raise KeyFetchError unless the program succeeded and wrote no more than a resource."""
    if buffer.full:
        raise kbs_value.too_long(resource)
    if ended.in_time and ended.status == _USAGE and "Usage" in ended.errors:
        raise KeyFetchError(f"{PROGRAM} does not know the option --resource-uri or its command get-resource", _ONE_SHOT)
    if ended.in_time and ended.status > 0:
        raise kbs_errors.explain(ended.errors, resource)
    if why := program.failure(PROGRAM, ended, seconds):
        raise KeyFetchError(why, program.BY_HAND if ended.in_time else _SLOW, retryable=True)


def _decoded(text: memoryview, resource: kbs_errors.Resource) -> Passphrase:
    """Return the passphrase that the program wrote, as base64 on one line."""
    try:
        secret = base64.b64decode(bytes(text).strip(), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFetchError(f"{PROGRAM} wrote something else than one line of base64", _ONE_SHOT) from None
    return kbs_value.passphrase(secret, resource)

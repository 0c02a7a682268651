"""One-time passwords: temporary, made up here, known to nobody."""

from __future__ import annotations

import os

from cryptpilot_boot.passphrase import Passphrase

_BYTES = 64


def ask(timeout: float) -> Passphrase:  # noqa: ARG001 - all providers are asked alike
    """Return a fresh random passphrase."""
    return Passphrase(os.urandom(_BYTES), strong=True)

"""One-time passwords: random keys that are made for one open and never stored."""

from __future__ import annotations

import dataclasses
import os

from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers.provider import Provider, Source

_BYTES = 64


@dataclasses.dataclass(frozen=True)
class Otp(Source):
    """One-time password: each open has a new random passphrase, and the previous content is lost."""

    provider = "otp"


def _ask(timeout: float) -> Passphrase:  # noqa: ARG001 - all providers are asked alike
    """Return a new random passphrase."""
    return Passphrase(os.urandom(_BYTES), strong=True)


PROVIDER = Provider(
    make=Otp,
    keys={},
    prepare=lambda _: _ask,
    describe=lambda _: {"provider": "one-time password"},
    one_time=True,
)

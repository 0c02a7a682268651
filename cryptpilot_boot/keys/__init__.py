"""Key providers: each returns a passphrase.

`prepare` does all that needs no network (imports, parsing the client key), so that it can be done while the
network comes up; what it returns asks for the passphrase. Whether asking again makes sense is decided in
`keys.retry` alone.
"""

from __future__ import annotations

from cryptpilot_boot.config import Kms
from cryptpilot_boot.config.model import Encrypt
from cryptpilot_boot.keys import otp
from cryptpilot_boot.keys.retry import Ask, ask_until
from cryptpilot_boot.passphrase import Passphrase

__all__ = ["Ask", "Passphrase", "ask_until", "describe", "prepare"]


def prepare(encrypt: Encrypt) -> Ask:
    """Get everything ready to ask for the passphrase of a volume with this `[encrypt]` section.

    Raises KeyFetchError when the credentials are unusable.
    """
    if isinstance(encrypt, Kms):
        # a tenth of a second of imports, which OTP volumes do without
        from cryptpilot_boot.keys import kms

        return kms.prepare(encrypt)
    return otp.ask


def describe(encrypt: Encrypt) -> dict[str, str]:
    """Say where the passphrase comes from: the provider, and what a person needs to find the secret."""
    if isinstance(encrypt, Kms):
        return {
            "provider": f"KMS instance {encrypt.kms_instance_id}, secret {encrypt.secret_name}",
            "endpoint": encrypt.address if ":" in encrypt.address else f"{encrypt.address}:443",
        }
    return {"provider": "one-time password"}

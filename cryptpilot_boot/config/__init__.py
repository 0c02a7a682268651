"""TOML files in, validated frozen values out. Pure: uses no device and no network."""

from cryptpilot_boot.config.load import load
from cryptpilot_boot.config.model import Boot, Config, Encrypt, Fallback, Identity, Volume
from cryptpilot_boot.providers.execute import Exec
from cryptpilot_boot.providers.kms import Kms, KmsRole
from cryptpilot_boot.providers.otp import Otp

__all__ = ["Boot", "Config", "Encrypt", "Exec", "Fallback", "Identity", "Kms", "KmsRole", "Otp", "Volume", "load"]

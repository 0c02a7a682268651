"""TOML files in, validated frozen values out. Pure: knows no device and no network."""

from cryptpilot_boot.config.load import load
from cryptpilot_boot.config.model import Boot, Config, Encrypt, Exec, Identity, Kms, KmsRole, Otp, Volume

__all__ = ["Boot", "Config", "Encrypt", "Exec", "Identity", "Kms", "KmsRole", "Otp", "Volume", "load"]

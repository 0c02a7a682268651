"""cryptpilot: LUKS2 disks that unlock themselves at boot with secrets from Alibaba Cloud KMS."""

__version__ = "0.1.0"

"""Volumes: their state on the device, and how they are initialized, opened and closed."""

from cryptpilot_boot.errors import WrongSecret
from cryptpilot_boot.volume.header import Restoration, backup, require_restorable, restore
from cryptpilot_boot.volume.initialize import Force, Target, initialize, require_formattable
from cryptpilot_boot.volume.opening import close, open_volume, require_openable, verify
from cryptpilot_boot.volume.recovery import enroll, open_by_key, require_persistent
from cryptpilot_boot.volume.secret import Opened, Opening
from cryptpilot_boot.volume.state import State, Status, describe, examine, is_open, reencryption

__all__ = [
    "Force",
    "Opened",
    "Opening",
    "Restoration",
    "State",
    "Status",
    "Target",
    "WrongSecret",
    "backup",
    "close",
    "describe",
    "enroll",
    "examine",
    "initialize",
    "is_open",
    "open_by_key",
    "open_volume",
    "reencryption",
    "require_formattable",
    "require_openable",
    "require_persistent",
    "require_restorable",
    "restore",
    "verify",
]

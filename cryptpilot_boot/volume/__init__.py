"""The domain: what a volume is, what state it is in, how it is initialized, opened and closed."""

from cryptpilot_boot.volume.initialize import initialize
from cryptpilot_boot.volume.opening import close, open_volume, unlock
from cryptpilot_boot.volume.state import State, Status, examine

__all__ = ["State", "Status", "close", "examine", "initialize", "open_volume", "unlock"]

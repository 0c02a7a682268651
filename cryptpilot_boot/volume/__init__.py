"""The domain: what a volume is, what state it is in, how it is initialized, opened and closed."""

from cryptpilot_boot.volume.initialize import Force, Target, initialize, require_formattable
from cryptpilot_boot.volume.opening import Opening, close, open_volume, require_openable, verify
from cryptpilot_boot.volume.state import State, Status, examine, is_open

__all__ = [
    "Force",
    "Opening",
    "State",
    "Status",
    "Target",
    "close",
    "examine",
    "initialize",
    "is_open",
    "open_volume",
    "require_formattable",
    "require_openable",
    "verify",
]

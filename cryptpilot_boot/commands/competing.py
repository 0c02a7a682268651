"""What competes with the volumes on this machine, for the commands that report it, and the generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, init, luks_header
from cryptpilot_boot.units import competing
from cryptpilot_boot.volume import state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Volume


def find(volumes: Sequence[Volume]) -> list[competing.Competitor]:
    """Return what else would open the volumes' devices at boot, or mount them by another name."""
    texts = competing.Texts(init.crypttab(), init.kernel_command_line(), init.fstab())
    return competing.find(volumes, texts, init.resolve, _foreign)


def _foreign(path: str) -> bool:
    """Tell whether a device holds a LUKS header that is not ours. One that cannot be read counts by its name."""
    try:
        return block.is_block_device(path) and luks_header.is_foreign(path, state.MARKS)
    except DeviceError:
        return False

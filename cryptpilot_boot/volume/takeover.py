"""A temporary volume takes a device that holds something else, once and by name.

Without that, it takes a blank device, or one with its own mark. A temporary volume of the existing Rust implementation
has no mark, or that of persistent volumes: a person has to say that its data are not needed. The device is blanked
first, and opened as usual afterwards. A power cut leaves it blank, or with data that have to be named again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.system import block, lock, luks_header
from cryptpilot_boot.volume import identity, state
from cryptpilot_boot.volume.found import changed, word
from cryptpilot_boot.volume.initialize import Target
from cryptpilot_boot.volume.mapping import close_leftover
from cryptpilot_boot.volume.sizes import require_makable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Volume


def require_takeable(volume: Volume, kinds: frozenset[str], others: Sequence[Volume]) -> Target | None:
    """Return what a temporary volume would destroy; None if it takes the device without being asked.

    kinds: what may be destroyed, as `found.word` names it. others: the other volumes of the configuration; their
    devices, and what they are bound to, are refused. Raises CryptpilotError unless it may be destroyed.
    """
    if not volume.temporary:
        raise CryptpilotError(
            "is persistent, and --overwrite is for temporary volumes: nothing was changed",
            f"open it as it is: cryptpilot open {volume.volume}; a volume that another program made keeps its data by:"
            f" cryptpilot adopt {volume.volume}",
        )
    with lock.held(volume.volume), log.timed("probe", volume.volume, device=volume.dev):
        return _look(volume, kinds, others)


def take(volume: Volume, agreed: Target, kinds: frozenset[str], others: Sequence[Volume]) -> None:
    """Blank a device for a temporary volume. agreed: what `require_takeable` returned; it is checked again."""
    with lock.held(volume.volume), log.timed("erase", volume.volume, device=volume.dev):
        if _look(volume, kinds, others) != agreed:
            raise changed(volume.dev)
        block.erase_signatures(agreed.device.node)
        # while the new header is half written, cryptsetup must not find an old copy
        block.clear(agreed.device.node, [(0, luks_header.SIZE)])


def _look(volume: Volume, kinds: frozenset[str], others: Sequence[Volume]) -> Target | None:
    device = block.look_up(volume.dev)
    if state.is_open(volume):
        return None
    close_leftover(volume)
    block.require_unused(device.node)
    require_makable(volume, device)
    found = state.look(device.node)
    refusal = state.not_ours_to_overwrite(volume, found)
    if refusal is None or found is None:
        return None
    _require_nobodys(volume, device, others)
    if found.kind.endswith("_member") or word(found) not in kinds:
        raise refusal
    return Target(device, found)


def _require_nobodys(volume: Volume, device: block.Device, others: Sequence[Volume]) -> None:
    """Raise DeviceError if the device, or its content, belongs to another volume of the configuration."""
    belongs = f"{volume.dev} holds {{}}, which no temporary volume takes"
    hint = 'nothing was changed; correct "dev" in one of the two files'
    for other in others:
        if block.is_block_device(other.dev) and block.look_up(other.dev).number == device.number:
            raise DeviceError(belongs.format(f'volume "{other.volume}" ({other.source})'), hint)
    bound = [other for other in others if other.identity]
    if not bound or not luks_header.uuid(device.node):
        return
    try:
        header, facts = luks_header.copy_from(device.node)
    except DeviceError:
        return  # no volume can be opened by such a header
    header.close()
    for other in bound:
        if identity.objection(other, facts, volume.dev) is None:
            raise DeviceError(belongs.format(f'what volume "{other.volume}" is bound to ({other.source})'), hint)

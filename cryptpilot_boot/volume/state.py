"""The state of a volume, read from its device and the kernel; the network is not used."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block, luks_data, luks_header, mappings, partition
from cryptpilot_boot.volume import growth, identity, pending, unmarked
from cryptpilot_boot.volume.found import COMPLETE as COMPLETE
from cryptpilot_boot.volume.found import CONVERTING as CONVERTING
from cryptpilot_boot.volume.found import INITIALIZING as INITIALIZING
from cryptpilot_boot.volume.found import MARKS as MARKS
from cryptpilot_boot.volume.found import TEMPORARY as TEMPORARY
from cryptpilot_boot.volume.found import again as again
from cryptpilot_boot.volume.found import describe as describe
from cryptpilot_boot.volume.found import unconverted as unconverted
from cryptpilot_boot.volume.found import word

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume

# libblkid recognizes these by about 16 bits: one in 34,000 devices with ciphertext at its end looks like one.
_BY_CHANCE = ("jmicron_raid_member",)


class State(enum.Enum):
    """The states of a volume."""

    DEVICE_NOT_FOUND = "device-not-found"
    CHECK_FAILED = "check-failed"
    REQUIRES_INIT = "requires-init"
    REQUIRES_ADOPT = "requires-adopt"
    INITIALIZING = "initializing"
    CONVERTING = "converting"
    READY_TO_OPEN = "ready-to-open"
    OPENED = "opened"


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a volume.

    detail: the reason, "" if the state says enough. hint: what to do about it, if that is known. rotation_pending: the
    volume was last opened with the previous value of its secret. recovery_key: whether the header has one; None if that
    is not known, or the volume cannot have one. reencrypting: a reencryption by cryptsetup is unfinished. ignored:
    parts of the header that have no effect, one sentence each. growth: what the volume does not use of its device; None
    if that is not known, or does not apply.
    """

    volume: Volume
    state: State
    detail: str = ""
    rotation_pending: bool = False
    recovery_key: bool | None = None
    hint: str = ""
    reencrypting: bool = False
    ignored: tuple[str, ...] = ()
    growth: growth.Growth | None = None

    @property
    def initialized(self) -> bool:
        """Whether the volume has a complete header with our mark, or gets one at each open."""
        return self.state in (State.READY_TO_OPEN, State.OPENED)

    @property
    def opened(self) -> bool:
        """Whether the decrypted device exists."""
        return self.state is State.OPENED


def look(path: str) -> block.Signature | None:
    """Return what a device holds, None for nothing.

    A header with a mark of cryptpilot decides, whatever the ciphertext behind it looks like. By chance, one device in
    some ten thousand looks like part of a RAID to libblkid, and the machine would not find its root. If the mark
    permits overwriting, only what can be such a chance is ignored. Raises DeviceError.
    """
    mark = luks_header.mark(path)
    if mark == COMPLETE:
        return block.Signature("crypto_LUKS", "2", mark)
    return block.signature(path, _BY_CHANCE if mark in MARKS else ())


def examine(volume: Volume) -> Status:
    """Return the state of a volume. Errors become a state: this does not raise."""
    try:
        with log.timed("probe", volume.volume, device=volume.dev):
            status = _examine(volume)
    except luks_header.Unfinished as error:
        return Status(volume, State.CHECK_FAILED, f"{error.what}; {error.hint}", reencrypting=True)
    except DeviceError as error:
        return Status(volume, State.CHECK_FAILED, error.what, hint=error.hint)
    if status.reencrypting:
        status = dataclasses.replace(status, detail=_and(status.detail, reencryption(volume)))
    if status.initialized and pending.is_pending(volume.volume):
        told = f"with the previous value of its secret; rotate it: cryptpilot rotate {volume.volume}"
        here = told if status.opened else f"last opened {told}"
        return dataclasses.replace(status, detail=_and(status.detail, here), rotation_pending=True)
    return status


def _and(detail: str, more: str) -> str:
    return f"{detail}; {more}" if detail else more


def reencryption(volume: Volume) -> str:
    """Say that a reencryption is unfinished, and how to continue it."""
    then = f"; then bind the volume to its new key: cryptpilot bind {volume.volume}" if volume.identity else ""
    return f"a reencryption is not finished; go on with it: cryptsetup reencrypt --resume-only {volume.dev}{then}"


def _examine(volume: Volume) -> Status:
    if is_open(volume):
        return _examine_opened(volume)
    if not block.is_block_device(volume.dev):
        return Status(volume, State.DEVICE_NOT_FOUND, f"{volume.dev}: no such block device")
    found = look(volume.dev)
    if volume.temporary:
        refusal = not_ours_to_overwrite(volume, found)
        if refusal:
            return Status(volume, State.CHECK_FAILED, refusal.what, hint=refusal.hint)
        return Status(volume, State.READY_TO_OPEN)
    if found is None:
        return Status(volume, State.REQUIRES_INIT)
    if found.subsystem == COMPLETE:
        header, facts = luks_header.copy_from(volume.dev)
        with header:
            refused = objection(volume, facts, volume.dev) or misfit(volume, block.look_up(volume.dev), header)
            grown = None if refused else _growth(volume, header)
        state = State.CHECK_FAILED if refused else State.READY_TO_OPEN
        what, hint = (refused.what, refused.hint) if refused else (_told(volume, grown), "")
        return _with_facts(Status(volume, state, what, hint=hint, growth=grown), facts)
    if found.subsystem == INITIALIZING:
        return Status(volume, State.INITIALIZING, "init was interrupted; run it again")
    if found.subsystem == CONVERTING:
        refused = unconverted(volume.dev, volume.volume)
        return Status(volume, State.CONVERTING, f"{refused.what}; {refused.hint}")
    if unmarked.is_unmarked(found):
        refused = unmarked.refusal(volume, found)
        return Status(volume, State.REQUIRES_ADOPT, refused.what, hint=refused.hint)
    return Status(volume, State.REQUIRES_INIT, f"{volume.dev} holds {describe(found)}")


def _examine_opened(volume: Volume) -> Status:
    """Return the state of an open volume. Its header is not used now, but will be at the next open."""
    if volume.temporary or not block.is_block_device(volume.dev):
        return Status(volume, State.OPENED)
    try:
        header, facts = luks_header.copy_from(volume.dev)
    except DeviceError as error:
        return Status(volume, State.OPENED, error.what)
    with header:
        grown = _growth(volume, header)
        refused = objection(volume, facts, volume.dev) or misfit(volume, block.look_up(volume.dev), header)
    again = f"will not open again: {refused.what}" if refused else ""
    detail = "; ".join(filter(None, (_told(volume, grown), again)))
    hint = refused.hint if refused else ""
    return _with_facts(Status(volume, State.OPENED, detail, hint=hint, growth=grown), facts)


def _with_facts(status: Status, facts: luks_header.Facts) -> Status:
    return dataclasses.replace(
        status,
        recovery_key=bool(facts.recovery_slots),
        reencrypting=facts.reencrypting,
        ignored=(
            *(
                f'its header says "{flag}", which has no effect: only the configuration can set it'
                for flag in facts.ignored
            ),
            *(f"key slot {number} is ignored: {reason}" for number, reason in facts.passed_over),
        ),
    )


def _growth(volume: Volume, header: luks_header.Header) -> growth.Growth | None:
    try:
        return growth.find(volume, header)
    except DeviceError:
        return None  # other code reports what is wrong with the device


def _told(volume: Volume, grown: growth.Growth | None) -> str:
    return growth.describe(volume, grown) if grown else ""


def is_open(volume: Volume) -> bool:
    """Tell whether the decrypted device exists.

    Raises DeviceError if the name belongs to another mapping.
    """
    mapping = mappings.find(volume.volume)
    if mapping is None:
        return False
    if block.is_block_device(volume.dev):
        ours = mappings.encrypts(mapping, volume.dev)
    else:
        ours = mapping.uuid.startswith("CRYPT-LUKS2-")  # the disk, or the link to it, is gone
    if ours:
        return True
    raise DeviceError(
        f"{volume.mapper_path} exists, but is not an encrypted mapping of {volume.dev}",
        f"see what it is: dmsetup table {volume.volume}",
    )


def not_ours_to_overwrite(volume: Volume, found: block.Signature | None) -> DeviceError | None:
    """Return why a temporary volume must not format a device that holds `found`; None if it may."""
    if found is None or found.subsystem == TEMPORARY:
        return None
    what = f"{volume.dev} holds {describe(found)}, which this temporary volume did not put there"
    if found.kind.endswith("_member"):
        return DeviceError(
            what, f'check "dev" in the configuration: it is part of something bigger (lsblk --fs {volume.dev})'
        )
    return DeviceError(
        what,
        f'check "dev" in the configuration (lsblk --fs {volume.dev}); only if its content may be lost, once:'
        f" cryptpilot open {volume.volume} --overwrite {word(found)}",
    )


def distrust(volume: Volume, facts: luks_header.Facts) -> str:
    """Return what in a header contradicts the configuration of the volume; "" for nothing.

    A header that no volume may have is refused earlier, when it is copied: see system.luks_metadata.
    """
    if volume.integrity and not facts.integrity:
        return "it has no integrity protection, and the configuration says integrity = true"
    return ""


def objection(volume: Volume, facts: luks_header.Facts, name: str) -> DeviceError | None:
    """Return why a volume must not be opened by a header; None if it may.

    Every command that opens, checks or changes a volume, or restores a header, calls this function. name: the device or
    file of the header, as a person knows it.
    """
    reason = distrust(volume, facts)
    if reason:
        return luks_header.Distrusted(name, reason)
    return identity.objection(volume, facts, name)


def misfit(volume: Volume, device: block.Device, header: luks_header.Header) -> DeviceError | None:
    """Return why a device has no size with which a volume can be opened.

    None if the size fits, or if the device is a partition that can be made to fit.
    """
    excess = luks_data.excess(header, device.size)
    if not excess or partition.is_partition(device):
        return None
    return DeviceError(
        f"{volume.dev} has {device.size} bytes, of which the last {excess} are not a whole sector of the volume:"
        " cryptsetup does not open it so",
        "give it a size that is a multiple of 4096 bytes: there are no data at its end",
    )

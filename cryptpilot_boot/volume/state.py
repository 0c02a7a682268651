"""What state a volume is in, read from its device and from the kernel; never from the network."""

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

# What libblkid takes ciphertext at the end of a device for, going by hardly more than 16 bits: once in 34,000 trials.
_BY_CHANCE = ("jmicron_raid_member",)


class State(enum.Enum):
    """Where a volume stands."""

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

    detail: what is behind it, "" when the state says it all; hint: what to do about it, if that is known.
    rotation_pending: the volume was last opened with the
    previous value of its secret. recovery_key: whether the header knows of one; None when that cannot be told, or there
    is no such thing. reencrypting: a reencryption by cryptsetup is to be finished. ignored: what in the header
    has no effect, a sentence each. growth: what it leaves unused of its device; None when that cannot be told, or there
    is no such thing.
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
        """Whether the volume holds a complete LUKS2 header of ours (or will be given one at each open)."""
        return self.state in (State.READY_TO_OPEN, State.OPENED)

    @property
    def opened(self) -> bool:
        """Whether the decrypted device is there."""
        return self.state is State.OPENED


def look(path: str) -> block.Signature | None:
    """Find out what a device holds; None for nothing.

    A header with a mark of ours says it, whatever the ciphertext behind it looks like: by chance one device in some
    ten thousand looks like part of a RAID to libblkid, which would keep a machine from its root. Where the mark allows
    that the device is written over, nothing may be there that is no chance. Raises DeviceError.
    """
    mark = luks_header.mark(path)
    if mark == COMPLETE:
        return block.Signature("crypto_LUKS", "2", mark)
    return block.signature(path, _BY_CHANCE if mark in MARKS else ())


def examine(volume: Volume) -> Status:
    """Find out the state of a volume. Trouble is a state too: this does not raise."""
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
    """Say that a reencryption is not finished, and how it goes on."""
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
    """Find out what the header says of a volume that does without it now, and will not at the next open."""
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
                f'its header says "{flag}", and a disk does not decide that: it is opened without'
                for flag in facts.ignored
            ),
            *(f"key slot {number} is ignored: {reason}" for number, reason in facts.passed_over),
        ),
    )


def _growth(volume: Volume, header: luks_header.Header) -> growth.Growth | None:
    try:
        return growth.find(volume, header)
    except DeviceError:
        return None  # what is wrong with the device is another's to say


def _told(volume: Volume, grown: growth.Growth | None) -> str:
    return growth.describe(volume, grown) if grown else ""


def is_open(volume: Volume) -> bool:
    """Tell whether the decrypted device is there.

    Raises DeviceError when the name is taken by a mapping of something else.
    """
    mapping = mappings.find(volume.volume)
    if mapping is None:
        return False
    if block.is_block_device(volume.dev):
        ours = mappings.encrypts(mapping, volume.dev)
    else:
        ours = mapping.uuid.startswith("CRYPT-LUKS2-")  # the disk it is on has gone, or its name
    if ours:
        return True
    raise DeviceError(
        f"{volume.mapper_path} exists, but is not an encrypted mapping of {volume.dev}",
        f"see what it is: dmsetup table {volume.volume}",
    )


def not_ours_to_overwrite(volume: Volume, found: block.Signature | None) -> DeviceError | None:
    """Say why a temporary volume must not format a device that holds `found`; None when it may."""
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
    """Say what in a header the volume's configuration rules out; "" for a header to go by.

    What no volume may say, the copy of the header is not made for: see system.luks_metadata.
    """
    if volume.integrity and not facts.integrity:
        return "it has no integrity protection, and the configuration says integrity = true"
    return ""


def objection(volume: Volume, facts: luks_header.Facts, name: str) -> DeviceError | None:
    """Say why a volume must not be opened by a header; None for a header to go by.

    What opens, checks or changes a volume, or puts a header back, asks here and nowhere else. name: what a person knows
    the header's place by.
    """
    reason = distrust(volume, facts)
    if reason:
        return luks_header.Distrusted(name, reason)
    return identity.objection(volume, facts, name)


def misfit(volume: Volume, device: block.Device, header: luks_header.Header) -> DeviceError | None:
    """Say why a device is not of a size that a volume can be opened on; None when it is, or can be made to be."""
    excess = luks_data.excess(header, device.size)
    if not excess or partition.is_partition(device):
        return None
    return DeviceError(
        f"{volume.dev} has {device.size} bytes, of which the last {excess} are not a whole sector of the volume:"
        " cryptsetup does not open it so",
        "give it a size that is a multiple of 4096 bytes: there are no data at its end",
    )

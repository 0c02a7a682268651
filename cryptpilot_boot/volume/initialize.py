"""Making a volume: LUKS2 header, file system, mark."""

from __future__ import annotations

import contextlib
import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log, steps
from cryptpilot_boot.config.model import SECTOR_SIZES
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.providers.provider import Made
from cryptpilot_boot.system import block, composite, cryptsetup, lock, luks_header, mkfs, partition
from cryptpilot_boot.volume import identity, pending, proof, state, unmarked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase

# aes-xts in 4096-byte sectors where the device consists of such; dm-integrity rounds down by itself.
_SMALL_SECTOR, _SECTOR = SECTOR_SIZES
# dm-integrity: 32 bytes of tag a sector, its superblock and its journal, and rounding: a share of the device, and some.
_INTEGRITY_SHARE = {_SECTOR: 50, _SMALL_SECTOR: 12}
_INTEGRITY_BYTES = {_SECTOR: 512 << 10, _SMALL_SECTOR: 2 << 20}


@dataclasses.dataclass(frozen=True)
class Force:
    """What a person allowed to be destroyed.

    reinit: an initialized volume. overwrite: whatever is of one of these kinds, named as libblkid does ("ext4").
    """

    reinit: bool = False
    overwrite: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Target:
    """A device that may be formatted, and what that would destroy. Two looks that found the same are equal."""

    device: block.Device
    found: block.Signature | None

    def __str__(self) -> str:
        return f"{self.device}, which holds {state.describe(self.found)}"


def initialize(
    volume: Volume,
    target: Target,
    force: Force,
    ask_passphrase: Callable[[], Passphrase],
    identity_file: Path,
    ask_others: Sequence[Callable[[], Passphrase]] = (),
) -> CryptpilotError | None:
    """Format the device of a persistent volume, make its file system, and bind the volume to it.

    target: what `require_formattable` returned and was agreed to. Everything is looked at again right before the
    device is written to. After a power cut the header says `cryptpilot-initializing`, or there is none, and this can
    be run again. Returns why the volume could not be bound; None when it is. A volume that was bound before, and
    cannot be bound to what was made, is not completed: it could not be opened. ask_others: ask the volume's further
    sources, each of which gets a key slot; all have answered before the device is written to.
    """

    def require_unchanged() -> None:
        if _require_formattable(volume, force) != target:
            raise DeviceError(
                f"{volume.dev} is not what it was a moment ago: another device, or other content",
                f"nothing was changed; see what it is now: lsblk --fs {volume.dev}",
            )

    def clear_the_way() -> None:
        require_unchanged()
        if target.found:
            block.erase_signatures(target.device.node)
            # no old copy of a header may be found once a new one is half written
            block.clear(target.device.node, [(0, luks_header.SIZE)])

    with lock.held(volume.volume), ask_passphrase() as passphrase, contextlib.ExitStack() as stack:
        others = [stack.enter_context(ask()) for ask in ask_others]
        with log.timed("probe", volume.volume, device=volume.dev):
            require_unchanged()  # before the passphrase is stretched in vain
        with make(volume, target.device, passphrase, mark=state.INITIALIZING, before_writing=clear_the_way) as header:
            # before the mark: at no moment is there a complete volume that the name is not bound to, but to an older
            unbound = _bind(volume, header, identity_file)
        keep(volume, target.device, passphrase, passphrase)
        for other in others:
            with log.timed("add-key", volume.volume, device=volume.dev), telling(volume, "cannot be given a key slot"):
                cryptsetup.add_key(target.device.node, passphrase, other)
            keep(volume, target.device, other, passphrase)
        with telling(volume, "cannot be marked as complete"):
            cryptsetup.set_subsystem(target.device.node, state.COMPLETE)
        pending.note(volume.volume, pending=False)
        return unbound


def keep(volume: Volume, device: block.Device, passphrase: Passphrase, witness: Passphrase) -> None:
    """Put into the header on the device what it has to keep of a passphrase that has a key slot there, if anything.

    witness: the passphrase that proves it, see volume.proof.
    """
    if not isinstance(passphrase, Made):
        return
    header, facts = luks_header.copy_from(device.node, volume.dev)
    with header, telling(volume, "cannot be given the token of its key"):
        slot = cryptsetup.verify(device.node, passphrase, header, finish=True)
        cryptsetup.add_token(device.node, passphrase.token(slot, proof.mac(proof.TPM2, witness, facts, slot)))


def _bind(volume: Volume, header: luks_header.Header, identity_file: Path) -> CryptpilotError | None:
    copy, facts = luks_header.copy_from(header.path, volume.dev)
    copy.close()
    try:
        identity.write(volume, identity.of(facts, identity_file))
    except CryptpilotError as error:
        if volume.identity:
            raise
        return error
    return None


def make(
    volume: Volume,
    device: block.Device,
    passphrase: Passphrase,
    *,
    mark: str,
    before_writing: Callable[[], object],
) -> luks_header.Header:
    """Write the LUKS2 header, with `mark` as its subsystem, and make the file system; leaves the volume closed.

    before_writing: called right before the device is written to; raises if that must not be. Returns the header.
    """
    with lock.of_device(device.number, volume.dev):
        return _make(volume, device, passphrase, mark, before_writing)


def _make(
    volume: Volume, device: block.Device, passphrase: Passphrase, mark: str, before_writing: Callable[[], object]
) -> luks_header.Header:
    with log.timed("format", volume.volume, device=volume.dev), telling(volume, "cannot be formatted"):
        if volume.integrity and not volume.makefs:
            steps.expect(device.size)  # every sector is written once
        header = cryptsetup.luks_format(
            device.node,
            passphrase,
            subsystem=mark,
            sector_size=_sector_size(volume, device),
            integrity=volume.integrity,
            # whoever is to use the volume as it is may read what he never wrote
            wipe=not volume.makefs,
            before_writing=before_writing,
        )
        header.write_to(device)
    if not volume.makefs:
        return header
    # Under a name of its own: whoever waits for the real one (fstab, say) shall find it complete.
    name = working_name(volume)
    facts = {"kind": volume.makefs, "device": volume.dev}
    with log.timed("makefs", volume.volume, **facts), telling(volume, f"cannot be given its {volume.makefs}"):
        # What is made here is made anew after a power cut: there is no need for the journal yet.
        cryptsetup.luks_open(
            device.node, name, passphrase, header, journal=not volume.integrity, discard=volume.discard
        )
        try:
            # With a volume key that is new, whatever the old bytes now look like is chance.
            mkfs.make(volume.makefs, f"/dev/mapper/{name}", integrity=volume.integrity, temporary=volume.temporary)
        finally:
            cryptsetup.close(name)
    return header


@contextmanager
def telling(volume: Volume, what: str, hint: str = "") -> Iterator[None]:
    """Say of a program that failed what it was to do with the volume's device, and how to go on.

    hint: in place of the kernel's log, and of doing it again.
    """
    try:
        yield
    except ProgramError as error:
        verb = "open" if volume.temporary else "init"
        again = f"see what the kernel says of it (dmesg); then again: cryptpilot {verb} {volume.volume}"
        said = cryptsetup.said(error, volume.dev)
        raise CryptpilotError(f"{volume.dev} {what}: {said}", error.hint or hint or again) from None


def require_formattable(volume: Volume, force: Force, others: Iterable[Volume] = ()) -> Target:
    """Return what would be formatted; raise unless that is allowed: nothing is destroyed unproven.

    others: volumes whose device this must not be, by whatever name.
    """
    with lock.held(volume.volume), log.timed("probe", volume.volume, device=volume.dev):
        target = _require_formattable(volume, force)
    for other in others:
        if block.is_block_device(other.dev) and block.look_up(other.dev).number == target.device.number:
            raise DeviceError(
                f'{volume.dev} is the same device as {other.dev}, which belongs to volume "{other.volume}"'
                f" ({other.source})",
                "give each volume a device of its own; nothing was changed",
            )
    return target


def _require_formattable(volume: Volume, force: Force) -> Target:
    if volume.temporary:
        raise CryptpilotError(
            "needs no init: it is temporary, and each open recreates it",
            f"open it: cryptpilot open {volume.volume}",
        )
    identity.require_replaceable(volume)
    device = block.look_up(volume.dev)
    if state.is_open(volume):
        raise DeviceError(
            "is open",
            f"it is initialized already; close it: cryptpilot close {volume.volume}",
        )
    close_leftover(volume)
    block.require_unused(device.node)
    require_makable(volume, device)
    found = state.look(device.node)
    _require_allowed(volume, found, force)
    return Target(device, found)


def _require_allowed(volume: Volume, found: block.Signature | None, force: Force) -> None:
    """Raise unless what the device holds is nothing, an init that was cut short, or what was named to be destroyed."""
    if found is None or found.subsystem == state.INITIALIZING:
        return
    if found.subsystem == state.COMPLETE:
        if not force.reinit:
            raise DeviceError(
                f"{volume.dev} is initialized already",
                f"open it: cryptpilot open {volume.volume}; or, if all it holds may be lost:"
                f" cryptpilot init {volume.volume} --force-reinit",
            )
        return
    if found.subsystem == state.CONVERTING:
        raise state.unconverted(volume.dev, volume.volume)
    if found.kind.endswith("_member"):
        raise DeviceError(
            f"{volume.dev} is part of something bigger: it holds {state.describe(found)}",
            'take it out of that first (pvremove, mdadm --zero-superblock, ...), or check "dev"',
        )
    if found.kind not in force.overwrite:
        keep = f"to keep its data: cryptpilot adopt {volume.volume}; if" if unmarked.is_unmarked(found) else "if"
        raise DeviceError(
            f"{volume.dev} holds {state.describe(found)}; init would destroy it",
            f"{keep} its content may be lost: cryptpilot init {volume.volume} --overwrite {found.kind}",
        )


def require_makable(volume: Volume, device: block.Device) -> None:
    """Raise CryptpilotError when what is to be made on the device needs more room, or a program that is missing."""
    if volume.makefs:
        mkfs.require(volume.makefs)
    sector_size = _require_sector_size(volume, device)
    needed = device_size(mkfs.KINDS[volume.makefs].minimum if volume.makefs else _SECTOR, volume, sector_size)
    if device.size < needed:
        raise DeviceError(
            f"{volume.dev} is too small: it has {block.readable(device.size)}, and"
            f" {volume.makefs or 'a volume'}{' with integrity' if volume.integrity else ''} needs"
            f" {block.readable(needed)}",
            'check "dev", or attach a larger disk',
        )


def device_size(content: int, volume: Volume, sector_size: int) -> int:
    """Return how many bytes a device has to have for a volume that holds so many. sector_size: bytes, of the volume."""
    needed = luks_header.SIZE + content
    if volume.integrity:
        needed += needed // _INTEGRITY_SHARE[sector_size] + _INTEGRITY_BYTES[sector_size]
    return needed


def _sector_size(volume: Volume, device: block.Device) -> int:
    """Return the bytes of a sector of a volume that is to be made."""
    if volume.sector_size:
        return volume.sector_size
    return _SECTOR if volume.integrity or device.size % _SECTOR == 0 else _SMALL_SECTOR


def _require_sector_size(volume: Volume, device: block.Device) -> int:
    """Return what `_sector_size` does; raise DeviceError unless a volume on the device can have that."""
    wanted = _sector_size(volume, device)
    physical = partition.sector_size(device)
    if wanted < physical:
        raise DeviceError(
            f"{volume.dev} has sectors of {physical} bytes, and {volume.source} says sector_size = {wanted}",
            "a volume on it cannot have smaller ones: remove sector_size, or attach a disk that has such",
        )
    if not volume.integrity and device.size % wanted:
        raise DeviceError(
            f"{volume.dev} has {device.size} bytes, no multiple of sector_size = {wanted} in {volume.source}",
            f"remove sector_size, or set it to {_SMALL_SECTOR}",
        )
    return wanted


def close_leftover(volume: Volume) -> None:
    """Remove the mappings that a run which was killed left behind; the caller holds the lock, so none is at work.

    The volume itself is not open: what cryptsetup makes below it, for integrity, has nothing above it then.
    """
    names = (working_name(volume), *(cryptsetup.below(name) for name in (working_name(volume), volume.volume)))
    for mapping in filter(None, map(block.mapping, (*names, *cryptsetup.temporary(block.mappings())))):
        if block.encrypts(mapping, volume.dev):
            cryptsetup.close(mapping.name)
    composite.remove_leftover(volume.dev)


def working_name(volume: Volume) -> str:
    """Name the mapping under which a volume is worked on before anybody may see it."""
    return f"{volume.volume}-initializing"

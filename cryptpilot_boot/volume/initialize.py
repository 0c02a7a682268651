"""Initializing a volume: LUKS2 header, file system, mark."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log, steps
from cryptpilot_boot.errors import CryptpilotError, DeviceError
from cryptpilot_boot.system import block, cryptsetup, lock, luks_header, mkfs
from cryptpilot_boot.volume import identity, mapping, pending, sizes, state, tokens, unmarked
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.found import changed
from cryptpilot_boot.volume.mapping import close_leftover
from cryptpilot_boot.volume.sizes import require_makable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase


@dataclasses.dataclass(frozen=True)
class Force:
    """What a person allowed to be destroyed.

    reinit: an initialized volume. overwrite: data of these kinds, as libblkid names them ("ext4").
    """

    reinit: bool = False
    overwrite: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Target:
    """A device that may be formatted, and what that would destroy. Equal values: nothing changed in between."""

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

    target: what `require_formattable` returned, and a person agreed to; it is checked again right before the device is
    written to. ask_others: ask the further sources of the volume, each of which gets a key slot. All sources answer
    before the device is written to.

    After a power cut the header has the mark `cryptpilot-initializing`, or there is no header: this can be run again.
    Returns why the volume could not be bound, None if it is. A volume that was bound before is not completed if the new
    binding cannot be written: it could not be opened.
    """

    def require_unchanged() -> None:
        if _require_formattable(volume, force) != target:
            raise changed(volume.dev)

    def clear_the_way() -> None:
        require_unchanged()
        if target.found:
            block.erase_signatures(target.device.node)
            # while the new header is half written, cryptsetup must not find an old copy
            block.clear(target.device.node, [(0, luks_header.SIZE)])

    with lock.held(volume.volume), ask_passphrase() as passphrase, contextlib.ExitStack() as stack:
        others = [stack.enter_context(ask()) for ask in ask_others]
        with log.timed("probe", volume.volume, device=volume.dev):
            require_unchanged()  # the passphrase takes long to derive: complain before
        with make(volume, target.device, passphrase, mark=state.INITIALIZING, before_writing=clear_the_way) as header:
            # before the mark, so that a complete volume is never bound to an older one
            unbound = _bind(volume, header, identity_file)
        tokens.keep(volume, target.device, passphrase, passphrase)
        for other in others:
            with log.timed("add-key", volume.volume, device=volume.dev), telling(volume, "cannot be given a key slot"):
                cryptsetup.add_key(target.device.node, passphrase, other)
            tokens.keep(volume, target.device, other, passphrase)
        with telling(volume, "cannot be marked as complete"):
            cryptsetup.set_subsystem(target.device.node, state.COMPLETE)
        pending.note(volume.volume, pending=False)
        return unbound


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
    """Write the LUKS2 header and make the file system. The volume is closed afterwards.

    mark: of the header. before_writing: called right before the device is written to; raises if that is not permitted.
    Returns a copy of the header.
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
            sector_size=sizes.sector_size(volume, device),
            integrity=volume.integrity,
            # without a file system, a reader may read blocks that were never written: integrity needs valid tags there
            wipe=not volume.makefs,
            before_writing=before_writing,
        )
        header.write_to(device)
    if not volume.makefs:
        return header
    facts = {"kind": volume.makefs, "device": volume.dev}
    journal = not volume.integrity  # after a power cut all of this is repeated: it needs no journal yet
    with (
        log.timed("makefs", volume.volume, **facts),
        telling(volume, f"cannot be given its {volume.makefs}"),
        mapping.opened(volume, device, passphrase, header, journal=journal, discard=volume.discard) as path,
    ):
        # The volume key is new: what the old bytes look like now is chance.
        mkfs.make(volume.makefs, path, integrity=volume.integrity, temporary=volume.temporary)
    return header


def require_formattable(volume: Volume, force: Force, others: Iterable[Volume] = ()) -> Target:
    """Return what would be formatted. Raises CryptpilotError unless that is permitted.

    others: volumes whose device must be another one, whatever path they name it by.
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
    """Raise unless the device is empty, has an interrupted init, or holds what `force` names."""
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
            'remove it from that first (pvremove, mdadm --zero-superblock, ...), or check "dev"',
        )
    if found.kind not in force.overwrite:
        keep = f"to keep its data: cryptpilot adopt {volume.volume}; if" if unmarked.is_unmarked(found) else "if"
        raise DeviceError(
            f"{volume.dev} holds {state.describe(found)}; init would destroy it",
            f"{keep} its content may be lost: cryptpilot init {volume.volume} --overwrite {found.kind}",
        )

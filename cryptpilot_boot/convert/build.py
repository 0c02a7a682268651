"""Making the new image: copy, put cryptpilot in, and check what came of it. All of it is in a file of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log, volume
from cryptpilot_boot.convert import loading, mending, packages, payload, unify
from cryptpilot_boot.convert.look import partition
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.keys.secret import Known
from cryptpilot_boot.system import (
    block,
    clone,
    cryptsetup,
    drafts,
    foreign_tools,
    luks_header,
    lvm,
    mappings,
    mkfs,
    partition_table,
    relabel,
)
from cryptpilot_boot.system.foreign_root import Root, data
from cryptpilot_boot.system.loop import attached
from cryptpilot_boot.system.mapper import remove_empty
from cryptpilot_boot.system.mounts import mounted
from cryptpilot_boot.volume import identity, state
from cryptpilot_boot.volume.failure import telling
from cryptpilot_boot.volume.initialize import make

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.convert.look import OpenImage
    from cryptpilot_boot.convert.plan import Conversion
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.drafts import Draft

Ask = Callable[[], "Passphrase"]

_WRITABLE = ("nosuid", "nodev")
_TICK = 1  # seconds by which the clock of a file system may be behind


def working_name(one: Volume) -> str:
    """Name the mapping under which a volume is open while it is filled."""
    return f"{one.volume}-converting"


def source_name(one: Volume) -> str:
    """Name the mapping that has the content of a logical volume that is copied into the volume."""
    return f"{one.volume}-source"


def close_leftover(one: Volume) -> None:
    """Remove the mappings that a conversion which was killed left behind; the caller holds the volume's lock.

    Raises CryptpilotError where something of that name is not such a mapping: it lies on a draft.
    """
    working = (working_name(one), cryptsetup.below(working_name(one)))
    remove_empty((*working, source_name(one)))
    for name in working:
        found = mappings.find(name)
        if found and not is_of_conversion(found.uuid, mappings.backing_files(found)):
            raise CryptpilotError(
                f"/dev/mapper/{name} is there, and was not made by a conversion", f"see: dmsetup info {name}"
            )
        if found:
            cryptsetup.close(name)
    lvm.remove_leftover(source_name(one))


def is_of_conversion(uuid: str, files: Sequence[str]) -> bool:
    """Tell whether a mapping is one that a conversion made. files: that it lies on, as the kernel names them."""
    names = [name.removesuffix(" (deleted)") for name in files]
    return uuid.startswith("CRYPT-") and bool(names) and all(name.endswith(drafts.SUFFIX) for name in names)


def build(planned: Conversion, source: OpenImage, config: Config, draft: Draft, ask: Ask, work: Path) -> None:
    """Write a raw image into an empty file. work: as of `look.found`.

    The volume in it is complete in the end, and closed. Raises CryptpilotError; what the file holds then is of no use.
    """
    name = planned.volume.volume
    drafts.resize(draft, planned.size)
    partition_table.write(draft.reach, planned.table)
    clone.copy_areas(source.device, draft.descriptor, planned.boot_areas)
    with attached(draft.descriptor, partitions=True) as disk:
        for number in planned.whole:
            with log.timed("copy", name, device=partition(disk, number)):
                clone.copy_blocks(source.partition(number), partition(disk, number))
        _make_boot(planned, source, disk, work)
        _make_root(planned, source, config, disk, ask, work)
    os.fsync(draft.descriptor)


def on_disk(planned: Conversion, disk: str) -> Volume:
    """Return the volume as it is on a partition of a loop device, where its file system is copied and none is made."""
    return dataclasses.replace(
        planned.volume, dev=partition(disk, planned.root), makefs=None, sector_size=planned.sector_size, discard=False
    )


def _make_boot(planned: Conversion, source: OpenImage, disk: str, work: Path) -> None:
    device = partition(disk, planned.boot)
    with log.timed("copy-fs", planned.volume.volume, device=device):
        if planned.new_boot:
            mkfs.make_boot(device)
        else:
            clone.copy(planned.boot_kind, source.partition(planned.boot), device, work)


def _make_root(planned: Conversion, source: OpenImage, config: Config, disk: str, ask: Ask, work: Path) -> None:
    one = on_disk(planned, disk)
    device = block.look_up(one.dev)
    name = working_name(one)
    mapper = f"/dev/mapper/{name}"
    with contextlib.ExitStack() as stack:
        with ask() as passphrase:
            header = make(one, device, passphrase, mark=state.INITIALIZING, before_writing=lambda: None)
            stack.enter_context(header)
            # what a power cut leaves is deleted, so the journal is not needed yet
            cryptsetup.luks_open(device.node, name, passphrase, header, journal=not one.integrity)
        stack.callback(cryptsetup.close, name)
        old = block.look_up(source.partition(planned.root))
        if block.look_up(mapper).size < old.size:
            raise CryptpilotError(f"{mapper} is too small for {old}", "please report this")
        kind = planned.kinds[planned.root]
        with log.timed("copy-fs", one.volume, device=mapper):
            clone.copy(kind, old.node, mapper, work)
        with system_mounted(planned, disk, mapper, work) as root:
            mend(planned, config, disk, root, header, name)
        for copied, where in ((kind, mapper), (planned.boot_kind, partition(disk, planned.boot))):
            with log.timed("check-fs", one.volume, device=where):
                fault = clone.fault(copied, where)
            if fault:
                raise CryptpilotError(f"the file system that was copied {fault}", "please report this")
    with telling(one, "cannot be marked as complete"):
        cryptsetup.set_subsystem(device.node, state.COMPLETE)


@contextlib.contextmanager
def system_mounted(planned: Conversion, disk: str, mapper: str, work: Path) -> Iterator[Root]:
    """Mount the new system, /boot and the EFI system partition included; a new /boot gets what is in the old one."""
    kind = planned.kinds[planned.root]
    boot = partition(disk, planned.boot)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(mounted(mapper, work / "root", kind, (*_WRITABLE, *clone.KINDS[kind].options)))
        root = Root(path)
        if planned.new_boot:
            with mounted(boot, work / "esp", planned.boot_kind, _WRITABLE) as new:
                foreign_tools.move_content(path / "boot", new)
        options = (*_WRITABLE, *clone.KINDS[planned.boot_kind].options)
        stack.enter_context(mounted(boot, path / "boot", planned.boot_kind, options))
        if (planned.loader.uses_esp or planned.unified) and planned.esp:
            root.make_directory("/boot/efi")
            if not root.is_directory("/boot/efi"):
                raise CryptpilotError("/boot/efi in the image is a link", "make it a directory")
            stack.enter_context(mounted(partition(disk, planned.esp), path / "boot/efi", "vfat", _WRITABLE))
        yield root


def mend(
    planned: Conversion, config: Config, disk: str, root: Root, header: luks_header.Header, mapping: str = ""
) -> None:
    """Put cryptpilot into the new system, have its own programs make initrds and boot loader, and check them.

    mapping: the open device of its root; "" if that is the partition itself. The change of how it boots comes last.
    """
    one = planned.volume
    began = time.time() - _TICK
    boot = block.tags(partition(disk, planned.boot)).get("UUID", "") if planned.new_boot else ""
    partitions = [*planned.whole, planned.boot, *([] if mapping else [planned.root])]
    devices = {disk.removeprefix("/dev/"): disk}
    devices |= {f"mapper/{mapping}": f"/dev/mapper/{mapping}"} if mapping else {}
    devices |= {partition(disk, number).removeprefix("/dev/"): partition(disk, number) for number in partitions}
    with root.furnished(devices):
        with log.timed("install", one.volume):
            if planned.packages:
                packages.install(root, planned.packages, one)
            if not payload.is_in(root):
                payload.install(root)
            bound_by = payload.configure(root, config, one)
            copy, facts = luks_header.copy_from(header.path, one.dev)
            copy.close()
            identity.write(one, identity.of(facts, bound_by))
        with log.timed("make-image", one.volume):
            foreign_tools.enable(root, "cryptpilot.service")
            foreign_tools.rebuild_images(root)
        with log.timed("boot-loader", one.volume):
            table = mending.fstab(root.text("/etc/fstab"), one, boot, planned.swapped_to, planned.root_names)
            root.rewrite("/etc/fstab", data(table))
            loading.set_root(root, planned.loader, one)
            loading.change(root, planned.loader, one, disk, boot)
        if planned.contexts:
            with log.timed("label", one.volume):
                for directory in ("/", "/boot"):
                    relabel.label(root, directory, began, planned.contexts)
    if planned.unified:
        with log.timed("unify", one.volume):
            unify.install(root, root.text(planned.loader.grub.configuration), root.place("/boot/efi"), planned.unified)
    for path in ("/", "/boot"):
        foreign_tools.flush(root.place(path))


def enroll(planned: Conversion, draft: Draft, ask: Ask) -> Passphrase:
    """Give the volume of a new image a recovery key and return it; the caller shows it and wipes it.

    This process's memory is locked. Raises CryptpilotError.
    """
    kept: list[Passphrase] = []
    with attached(draft.descriptor, partitions=True) as disk, ask() as passphrase:
        volume.enroll(on_disk(planned, disk), Known(passphrase), lambda key: kept.append(key.copy()), replace=False)
    os.fsync(draft.descriptor)
    return kept.pop()

"""Encrypting the root of a disk in place.

In an order in which a power cut at any moment leaves what can be gone on with: the old system first, and then a header
that says how far it is. See docs/convert.md, "A disk in place".
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.convert import build, in_place
from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.errors import CryptpilotError, DeviceError, Interrupted
from cryptpilot_boot.keys.secret import Known
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import (
    block,
    clone,
    cryptsetup,
    encryption,
    ext4,
    loop,
    luks_conversion,
    luks_header,
    partition_table,
)
from cryptpilot_boot.system.luks_conversion import reader
from cryptpilot_boot.volume import opening, recovery, state
from cryptpilot_boot.volume.failure import telling_a_wrong_secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.convert.build import Ask
    from cryptpilot_boot.convert.in_place import Disk, RootToEncrypt
    from cryptpilot_boot.system.luks_header import Header

_CHUNK = 1 << 20
Show = Callable[[Passphrase], None]


def begin(target: RootToEncrypt, disk: Disk, config: Config, ask: Ask, show: Show | None, work: Path) -> None:
    """Mend the system, and put the header of the volume before its data, which are not encrypted yet.

    show: shows the recovery key that the volume is given; None for none. It is shown once it is on the disk. work: as
    of `look.found`, with room for a header.
    """
    name, device = target.plan.volume.volume, target.device
    with contextlib.ExitStack() as stack:
        with ask() as passphrase, log.timed("format", name, device=device.node):
            header = stack.enter_context(
                encryption.prepare(
                    device.size,
                    passphrase,
                    subsystem=state.CONVERTING,
                    sector_size=target.plan.sector_size,
                    work=work,
                )
            )
        _require_prepared(header, device)
        keys: list[Passphrase] = []
        if show:
            keys = _enroll(target.volume, device.size, header, ask)
            for key in keys:
                stack.enter_context(key)
        final = stack.enter_context(_require_sound(target.volume, device, header, ask))
        if target.blocks is not None:
            with log.timed("shrink", name, device=device.node):
                ext4.shrink(device.node, target.blocks)
            _require_whole(device.node)
        with build.system_mounted(target.plan, disk.device.node, device.node, work) as root:
            build.mend(target.plan, config, disk.device.node, root, final)
        partition_table.rename(disk.device.node, target.plan.table.partition(target.plan.root))
        _require_whole(device.node)
        if ext4.size(device.node).bytes > device.size - luks_conversion.TAKEN:
            raise CryptpilotError(
                f"the root's file system uses space of {device} that has to be free", "please report this"
            )
        with log.timed("move", name, device=device.node):
            encryption.write(device, header)
        for key in keys:
            if show:
                _show(show, key, name)


def _show(show: Show, key: Passphrase, name: str) -> None:
    try:
        show(key)
    except OSError as error:
        raise CryptpilotError(
            f"the recovery key could not be shown: {error.strerror}",
            f"once the disk is converted, make another: cryptpilot recovery-key {name} --replace",
        ) from None


def _require_whole(device: str) -> None:
    fault = clone.fault("ext4", device)
    if fault:
        raise CryptpilotError(
            f"the root's file system {fault}", f"repair it: e2fsck -f {device}; then run the same command again"
        )


def _require_prepared(header: Header, device: block.Device) -> None:
    """Raise CryptpilotError unless what cryptsetup made can be known, and gone on with."""
    try:
        luks_header.copy_from(header.path, device.path, reader(device.size))[0].close()
    except DeviceError:
        reason = "prepares an encryption that the volume key does not prove"
    else:
        if luks_header.mark(header.path) == state.CONVERTING:
            return
        reason = "does not mark a volume that it converts"
    raise CryptpilotError(f"this cryptsetup {reason}", "install 2.3.7, 2.4.3 or newer; nothing was changed")


def _require_sound(volume: Volume, device: block.Device, header: Header, ask: Ask) -> Header:
    """Return the header as it is in the end; raise CryptpilotError unless the secret opens that."""
    final, _ = luks_header.copy_from(header.path, device.path, reader(device.size))
    try:
        with ask() as passphrase:
            opening.slot_in(volume, device, final, passphrase)
    except BaseException:
        final.close()
        raise
    return final


def _enroll(volume: Volume, size: int, header: Header, ask: Ask) -> list[Passphrase]:
    """Give a header that was prepared a recovery key, and return it.

    cryptsetup adds no key slot to one that it prepared: it adds it to what that is in the end, from which it is taken.
    """
    keys: list[Passphrase] = []
    final, _ = luks_header.copy_from(header.path, check=reader(size))
    with final:
        os.ftruncate(final.descriptor, size)
        with loop.attached(final.descriptor) as device, ask() as passphrase:
            cryptsetup.set_subsystem(device, state.COMPLETE)
            recovery.enroll_held(
                dataclasses.replace(volume, dev=device),
                Known(passphrase),
                lambda key: keys.append(key.copy()),
                replace=False,
            )
        changed, moved = luks_conversion.with_slots_of(
            luks_header.metadata(header.descriptor), luks_header.metadata(final.descriptor)
        )
        for old, (new, length) in moved.items():
            for done in range(0, length, _CHUNK):
                count = min(_CHUNK, length - done)
                block.write(header.descriptor, os.pread(final.descriptor, count, old + done), new + done)
        luks_header.replace_metadata(header.descriptor, changed)
    return keys


def finish(volume: Volume, ask: Ask) -> None:
    """Encrypt what is not encrypted yet, and mark the volume as complete. volume: on its partition."""
    device = block.look_up(volume.dev)
    _rewrite(device)
    header, before = luks_header.copy_from(device.node, check=reader(device.size))
    with header, ask() as passphrase:
        opening.slot_in(volume, device, header, passphrase)
        if before.reencrypting:
            with log.timed("encrypt", volume.volume, device=device.node):
                _encrypt(device, passphrase)
        done, after = opening.checked_header(volume, device.node, volume.dev)
        with done:
            if after.volume_keys != before.volume_keys:
                raise DeviceError(f"{volume.dev} got another header meanwhile", "see what it is: cryptsetup luksDump")
            _look_over(volume, device, passphrase, done)
    cryptsetup.set_subsystem(device.node, state.COMPLETE)


def _encrypt(device: block.Device, passphrase: Passphrase) -> None:
    encryption.mend(device.node, passphrase)
    header, now = luks_header.copy_from(device.node, check=reader(device.size))
    header.close()
    if luks_conversion.is_all_encrypted(now):
        encryption.end(device)
    elif now.reencrypting:
        encryption.go_on(device.node, passphrase)


def _rewrite(device: block.Device) -> None:
    """Write the header once more where a power cut kept it from being written as a whole."""
    if luks_header.mark(device.node) == state.CONVERTING:
        return
    header = in_place.saved(device)
    if header is None:
        raise refused(f"{device.path} holds no interrupted conversion")
    with header:
        header.write_to(device)


def _look_over(volume: Volume, device: block.Device, passphrase: Passphrase, header: Header) -> None:
    """Require that the file system is whole, and leave nothing behind it that was not encrypted."""
    name = build.working_name(volume)
    mapper = f"/dev/mapper/{name}"
    with telling_a_wrong_secret(volume):
        cryptsetup.luks_open(device.node, name, passphrase, header, journal=True)
    try:
        with log.timed("check-fs", volume.volume, device=mapper):
            _require_whole(mapper)
            # cryptsetup had the first data there for a while
            used = ext4.size(mapper).bytes
            block.clear(mapper, [(used, block.look_up(mapper).size - used)])
    finally:
        cryptsetup.close(name)


@contextlib.contextmanager
def going_on() -> Iterator[None]:
    """Say of what fails that nothing is lost, and how it goes on."""
    again = "no data is lost: run the same command again to continue"
    try:
        yield
    except Interrupted:
        raise
    except CryptpilotError as error:
        raise CryptpilotError(error.what, f"{error.hint}; {again}" if error.hint else again) from None

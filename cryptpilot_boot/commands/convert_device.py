"""`cryptpilot convert --device`: encrypts the root of a disk in place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.commands.convert import (
    Options,
    asking,
    directory_to_mount_in,
    require_free_name,
    say_what_to_enroll,
)
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.convert import encrypt, in_place, packages, payload
from cryptpilot_boot.keys.secret import Known
from cryptpilot_boot.system import lock, luks_header, mapper, mounts, process
from cryptpilot_boot.volume import recovery

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.convert.build import Ask
    from cryptpilot_boot.passphrase import Passphrase

_ROOM = 64  # MiB of memory: cryptsetup has a header there for a moment


def convert(
    config: Config, path: Path, options: Options, say: Callable[[str], None], show: Callable[[Passphrase], None]
) -> bool:
    """Encrypt the root of a disk in place, or continue with that; True when all of it is encrypted.

    say: takes a line of what is done. show: shows the recovery key.
    """
    (one,) = select(config, [options.volume])
    require_free_name(config, one)
    payload.require_installed()
    packages.require_files(options.packages)
    in_place.require_convertible(one)
    if not options.dry_run:
        mapper.require()
    process.lock_memory()
    mounts.keep_private()
    with asking(one, config, options) as ask, lock.held(one.volume), contextlib.ExitStack() as work:
        disk = in_place.opened(path, one)
        root = in_place.begun(disk, one)
        enrolls = options.recovery_key
        if root is None:
            place = work.enter_context(directory_to_mount_in(_ROOM))
            with log.timed("read-image", one.volume, device=disk.device.node):
                sizes = {path: path.stat().st_size for path in options.packages}
                target = in_place.look_over(disk, one, place, sizes, mend=not options.dry_run)
            for line in target.lines:
                say(f"{one.volume}: {line}")
            if options.dry_run:
                return True
            encrypt.begin(target, disk, config, ask, show if enrolls else None, place)
            root, enrolls = target.plan.root, False
        else:
            say(f"{one.volume}: the conversion of partition {root} was interrupted, and goes on")
            if options.dry_run:
                return True
        volume = in_place.on_partition(one, disk.partition(root))
        with encrypt.going_on():
            encrypt.finish(volume, ask)
        if enrolls:
            _enroll(volume, ask, say, show)
    say(f"{one.volume}: {path} is converted")
    say_what_to_enroll(one, say)
    return True


def _enroll(volume: Volume, ask: Ask, say: Callable[[str], None], show: Callable[[Passphrase], None]) -> None:
    """Give a volume a recovery key that was not asked for when its conversion began."""
    header, facts = luks_header.copy_from(volume.dev)
    header.close()
    if facts.recovery_slots:
        say(
            f"{volume.volume}: its recovery key was printed when the conversion began; if it was not:"
            f" cryptpilot recovery-key {volume.volume} --replace"
        )
        return
    with ask() as passphrase:
        recovery.enroll_held(volume, Known(passphrase), show, replace=False)

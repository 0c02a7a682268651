"""`cryptpilot convert`: an image with an encrypted root, from an ordinary one."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log, paths
from cryptpilot_boot.commands.key import asked_of, terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.convert import build, look, packages, payload, plan, tools, unify
from cryptpilot_boot.errors import CryptpilotError, Interrupted, printable
from cryptpilot_boot.keys import given
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import disk_image, drafts, lock, mapper, mounts, private, process, workplace
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Config, Volume

_PURPOSES = ("source", "image", *disk_image.FORMATS)  # of the drafts beside the new image
_HINTS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "have the quota raised, or write the image elsewhere",
    errno.EROFS: "write the image elsewhere",
    errno.EACCES: "run this as root",
    errno.EPERM: "run this as root",
}
# Bytes: with less, what failed failed for lack of room. Programs write some MiB at once, and of what ext4 has left it
# keeps 16 MiB for itself: linux/fs/ext4/super.c, ext4_calculate_resv_clusters.
_FULL = 32 << 20
Ask = Callable[[], Passphrase]


@dataclasses.dataclass(frozen=True)
class Options:
    """The work to do. volume: its name. secret: a file with the secret, None to ask the key provider.

    recovery_key: whether the volume gets one. dry_run: print the plan, and write nothing. unified: how it boots
    by a unified kernel image, None for GRUB alone. packages: files of those that are installed in it.
    """

    volume: str
    secret: Path | None = None
    recovery_key: bool = False
    dry_run: bool = False
    unified: plan.Unified | None = None
    packages: tuple[Path, ...] = ()


def convert(
    config: Config,
    source: Path,
    target: Path,
    options: Options,
    say: Callable[[str], None],
    show: Callable[[Passphrase], None],
) -> bool:
    """Write a new image whose root is a volume; True when it is there, whole. The old one is read only.

    say: takes a line of what is done. show: shows the recovery key.
    """
    (one,) = select(config, [options.volume])
    _require_paths(source, target)
    require_free_name(config, one)
    payload.require_installed()
    packages.require_files(options.packages)
    tools.require()
    if not options.dry_run:
        mapper.require()
    if options.unified:
        unify.require_programs(options.unified)
    process.lock_memory()
    mounts.keep_private()
    before = _version(source)
    with asking(one, config, options) as ask, contextlib.ExitStack() as stack, _telling(target):
        with lock.held(one.volume), contextlib.ExitStack() as work:
            build.close_leftover(one)
            work.callback(build.close_leftover, one)  # an interruption may have come before what would have closed it
            drafts.remove_leftovers(target, _PURPOSES)
            place = work.enter_context(directory_to_mount_in())
            with log.timed("read-image", one.volume):
                opened, planned = _planned(source, target, one, place, work, options)
            tools.require_for_boot(planned.boot_kind, new=planned.new_boot)
            form = disk_image.format_of(target)
            disk_image.require_size(form, planned.size)
            for line in (*planned.lines, f"the new image is written as {disk_image.FORMATS[form]}"):
                say(f"{one.volume}: {line}")
            if options.dry_run:
                return True
            _require_room(planned.used * (1 if form == disk_image.RAW else 2), target)
            draft = stack.enter_context(drafts.opened(target, "image"))
            with _writing(target):
                build.build(planned, opened, config, draft, ask, place)
        if _version(source) != before:
            raise CryptpilotError(
                f"{source} was changed during the conversion: the copy may be inconsistent",
                "shut down what uses it, then convert it again",
            )
        key = stack.enter_context(build.enroll(planned, draft, ask)) if options.recovery_key else None
        done = _packed(draft, target, one, stack)
        if key:
            _hand_over(key, target, show)
        drafts.finish(done, target)
    say(f"{one.volume}: {target} is converted")
    say_what_to_enroll(one, say)
    return True


def _planned(
    source: Path,
    target: Path,
    one: Volume,
    work: Path,
    stack: contextlib.ExitStack,
    options: Options,
) -> tuple[look.OpenImage, plan.Conversion]:
    """Look into an image, which stays open, and decide what becomes of it."""
    image = disk_image.facts(source)
    plan.require_readable(image, str(source))
    raw = source
    if image.format != disk_image.RAW:
        _require_room(source.stat().st_blocks * 512, target)  # at least: it may be compressed
        unpacked = stack.enter_context(drafts.opened(target, "source"))
        raw = unpacked.reach
        with log.timed("unpack-image", one.volume), _writing(target):
            drafts.resize(unpacked, image.size)
            disk_image.convert(source, image.format, raw, disk_image.RAW)
    opened = stack.enter_context(look.opened(raw, str(source), build.source_name(one)))
    sizes = {path: path.stat().st_size for path in options.packages}
    return opened, plan.make(look.found(image, opened, work), one, opened.roles, options.unified, sizes)


def say_what_to_enroll(one: Volume, say: Callable[[str], None]) -> None:
    """Say which sources of a volume that was converted have no key slot yet: all but the first."""
    if one.fallbacks:
        todo = "; ".join(
            f"cryptpilot enroll {one.volume} {one.source_name(number)}" for number in range(1, len(one.sources))
        )
        say(f"{one.volume}: only the first source of its key opens it so far; once the system is up: {todo}")


@contextlib.contextmanager
def asking(one: Volume, config: Config, options: Options) -> Iterator[Ask]:
    """Give what returns the passphrase; a file that holds it is read once, and first: it may be a pipe, or wrong."""
    if options.secret is None:
        with terms_of(config) as terms:
            yield asked_of(one, 0, terms)
        return
    with given.from_file(one.encrypt, options.secret) as known:
        yield known.copy


@contextlib.contextmanager
def _telling(target: Path) -> Iterator[None]:
    """Say what the kernel refused, and what to do about it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        what = printable(str(error.filename or target))
        hint = _HINTS.get(error.errno or 0, "see the kernel's log: dmesg")
        raise CryptpilotError(f"{what}: {error.strerror}", hint) from None


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Say that a disk ran full, whatever it was that failed for it, before what filled it is removed."""
    try:
        yield
    except (Interrupted, BrokenPipeError):
        raise
    except (CryptpilotError, OSError) as error:
        if workplace.room(target.parent) >= _FULL:
            raise
        what = error.what if isinstance(error, CryptpilotError) else error.strerror
        raise CryptpilotError(
            f"{target.parent} became full while the image was written: {what}",
            "make room, or write the image elsewhere",
        ) from None


def _version(path: Path) -> tuple[int, ...]:
    """Return what is another once a file was written to."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _require_paths(source: Path, target: Path) -> None:
    disk_image.require_file(source)
    for path in (source, target):
        if drafts.is_name_of_draft(path):
            raise CryptpilotError(
                f"{path} has the name of a file that a conversion writes: the next conversion would remove it",
                "rename it first",
            )
    if not target.parent.is_dir():
        raise CryptpilotError(f"{target.parent}: no such directory", "make it, or name another")
    drafts.require_name(target, _PURPOSES)
    if os.path.lexists(target):
        # one that was killed just after it had given the image its name has left the other one
        drafts.remove_leftovers(target, _PURPOSES)
        raise drafts.taken(target)


def require_free_name(config: Config, one: Volume) -> None:
    """Raise CryptpilotError if another volume has the name of a mapping that a conversion uses."""
    for name in (build.working_name(one), build.source_name(one)):
        if name in [other.volume for other in config.volumes]:
            raise CryptpilotError(
                f"volume {one.volume} has the name {name} during the conversion, and another volume has that name",
                "rename one of the two",
            )


def _require_room(needed: int, target: Path) -> None:
    left = workplace.room(target.parent)
    if left < needed:
        raise CryptpilotError(
            f"{target.parent} has {readable(left)} left, and {readable(needed)} are needed",
            "make room, or write the image elsewhere",
        )


@contextlib.contextmanager
def directory_to_mount_in(size: int = 1) -> Iterator[Path]:
    """Give a directory in memory to mount in, of so many MiB; what is mounted there only this process sees."""
    with mounts.mounted("tmpfs", private.directory(paths.CONVERT), "tmpfs", ("mode=700", f"size={size}m")) as directory:
        for name in ("root", "esp"):
            (directory / name).mkdir(mode=0o700)
        yield directory


def _packed(draft: drafts.Draft, target: Path, one: Volume, stack: contextlib.ExitStack) -> drafts.Draft:
    """Return the image in its own format, with all of it on the disk."""
    form = disk_image.format_of(target)
    if form != disk_image.RAW:
        with log.timed("write-image", one.volume), _writing(target):
            done = stack.enter_context(drafts.opened(target, form))
            disk_image.convert(draft.reach, disk_image.RAW, done.reach, form)
            os.fsync(done.descriptor)
            draft = done
    return draft


def _hand_over(key: Passphrase, target: Path, show: Callable[[Passphrase], None]) -> None:
    """Show the recovery key of an image that is whole and has no name yet.

    So there is never an image whose recovery key was not printed. A key that was printed for an image that then gets no
    name opens nothing.
    """
    try:
        show(key)
    except OSError as error:
        raise CryptpilotError(
            f"{target} was not kept: its recovery key could not be printed: {error.strerror}",
            "convert it again, with a standard output that takes the key",
        ) from None

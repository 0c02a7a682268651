"""`cryptpilot convert`: an image with an encrypted root, from an ordinary one."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log
from cryptpilot_boot.commands.key import passphrase_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.convert import build, look, payload, plan
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.keys import given
from cryptpilot_boot.system import disk_image, lock, mounts, private, process, workplace
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.passphrase import Passphrase

_SUFFIX = ".cryptpilot-new"
_WORK = private.RUN / "convert"
# What an image is written as, by how its name ends; all else is raw.
_FORMATS = {".qcow2": "qcow2"}
Ask = Callable[[], "Passphrase"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is to be done. volume: its name. secret: a file with the secret, None to ask the key provider.

    recovery_key: whether the volume gets one. dry_run: say what would be made, and write nothing.
    """

    volume: str
    secret: Path | None = None
    recovery_key: bool = False
    dry_run: bool = False


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
    _require_free_name(config, one)
    payload.require_installed()
    process.lock_memory()
    mounts.keep_private()
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(_workplace())
        with lock.held(one.volume), keys.Answers() as answers:
            build.close_leftover(one)
            _remove_leftovers(target)
            with log.timed("read-image", one.volume):
                opened, planned = _planned(source, target, one, work, stack)
            for line in planned.lines:
                say(f"{one.volume}: {line}")
            if options.dry_run:
                return True
            _require_room(planned, target)
            ask = _asking(one, config, options, answers)
            draft = stack.enter_context(_draft(target, "image"))
            build.build(planned, opened, config, draft, ask, work)
        if options.recovery_key:
            with keys.Answers() as answers:
                build.enroll(planned, draft, _asking(one, config, options, answers), show)
        _finish(draft, target, one, stack)
    say(f"{one.volume}: {target} is converted")
    return True


def _planned(
    source: Path, target: Path, one: Volume, work: Path, stack: contextlib.ExitStack
) -> tuple[look.Opened, plan.Plan]:
    """Look into an image, which stays open, and decide what becomes of it."""
    image = disk_image.facts(source)
    plan.require_readable(image, str(source))
    raw = source
    if image.format != disk_image.RAW:
        raw = stack.enter_context(_draft(target, "source"))
        disk_image.convert(source, image.format, raw, disk_image.RAW)
    opened = stack.enter_context(look.opened(raw, str(source)))
    return opened, plan.make(look.found(image, opened, work), one, opened.roles)


def _asking(one: Volume, config: Config, options: Options, answers: keys.Answers) -> Ask:
    if options.secret is None:
        return passphrase_of(one, config, answers)
    path = options.secret
    return lambda: given.from_file(one.encrypt, path)


def _require_paths(source: Path, target: Path) -> None:
    if not source.is_file():
        raise CryptpilotError(f"{source}: {'is no regular file' if source.exists() else 'no such image'}")
    _require_new(target)
    if not target.parent.is_dir():
        raise CryptpilotError(f"{target.parent}: no such directory", "make it, or name another")


def _require_new(target: Path) -> None:
    if os.path.lexists(target):
        raise CryptpilotError(f"{target} is there already", "name a new file: none is overwritten")


def _require_free_name(config: Config, one: Volume) -> None:
    name = build.working_name(one)
    if name in [other.volume for other in config.volumes]:
        raise CryptpilotError(
            f"volume {name} has the name that volume {one.volume} has meanwhile", "rename one of the two"
        )


def _require_room(planned: plan.Plan, target: Path) -> None:
    left = workplace.room(target.parent)
    if left < planned.used:
        raise CryptpilotError(
            f"{target.parent} has {readable(left)} left, and {readable(planned.used)} are needed",
            "make room, or write the image elsewhere",
        )


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """Give a directory to mount in; what is mounted there only this process sees."""
    with mounts.mounted("tmpfs", private.directory(_WORK), "tmpfs", ("mode=700", "size=1m")) as directory:
        for name in ("root", "esp"):
            (directory / name).mkdir(mode=0o700)
        yield directory


@contextlib.contextmanager
def _draft(target: Path, purpose: str) -> Iterator[Path]:
    """Give an empty file beside a path; it is removed in the end if it still has that name.

    So is one that was left by a process that was killed. Raises CryptpilotError when one that is at work has it.
    """
    path = target.with_name(f".{target.name}.{purpose}{_SUFFIX}")
    try:
        guard = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CryptpilotError(
            f"{path.parent}: cannot be written: {error.strerror}", "write the image elsewhere"
        ) from None
    try:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CryptpilotError(f"{target} is being written already", "wait until that is done") from None
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    finally:
        os.close(guard)


def _remove_leftovers(target: Path) -> None:
    """Remove what a process that was killed has left beside a path. Raises CryptpilotError when one is at work."""
    for purpose in ("source", "image", *_FORMATS.values()):
        if list(target.parent.glob(f".{glob.escape(target.name)}.{purpose}{_SUFFIX}*")):
            with _draft(target, purpose):
                pass


def _finish(draft: Path, target: Path, one: Volume, stack: contextlib.ExitStack) -> None:
    """Give the image its format and its name."""
    form = _FORMATS.get(target.suffix)
    if form:
        with log.timed("write-image", one.volume):
            done = stack.enter_context(_draft(target, form))
            disk_image.convert(draft, disk_image.RAW, done, form)
            draft = done
    _sync(draft)
    _require_new(target)
    draft.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

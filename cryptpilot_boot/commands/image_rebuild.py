"""`cryptpilot initrd rebuild`: rebuilds images, and replaces none by one that is not whole."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log, paths
from cryptpilot_boot.commands.image_check import identities, late, problems_of, required
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.images import image, record, remedy
from cryptpilot_boot.images.remedy import REBUILD
from cryptpilot_boot.system import dracut, lock, workplace
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptpilot_boot.commands.image_check import Explain
    from cryptpilot_boot.config import Config
    from cryptpilot_boot.images.image import UnpackedImage
    from cryptpilot_boot.images.record import Record

_MARGIN = 8 << 20  # bytes a file system keeps free beside a new image
_SUFFIX = ".cryptpilot-new"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The images to rebuild.

    kernel: whose, None for that of the kernel that runs. every: those of all kernels that have one. included: of these
    only the images that have cryptpilot already, and none if no volume is configured.
    """

    kernel: str | None = None
    every: bool = False
    included: bool = False


def rebuild(
    config: Config, choice: Choice, options: Sequence[str], say: Callable[[str], None], explain: Explain
) -> bool:
    """Rebuild images; each replaces the old one once it has been checked. True when all have been.

    options: more of dracut's. A unified kernel image is only read. If a rebuild fails, the old image is still there.
    With `every`, the error is printed and the others are tried; without it, CryptpilotError is raised.
    """
    if choice.included and not config.volumes:
        return True
    now = required(config)
    ours = identities(config)
    good = True
    for kernel, path in _chosen(choice):
        try:
            if not choice.included or _has_agent(path):
                good = _remake(config, now, ours, kernel, path, options, say) and good
        except Interrupted:
            raise
        except CryptpilotError as error:
            if not choice.every:
                raise
            explain(error, "")
            good = False
    return good


def _chosen(choice: Choice) -> list[tuple[str, Path]]:
    """Return the images with their kernels. Raises CryptpilotError if a required one is missing."""
    release = choice.kernel or dracut.running_kernel()
    todo = [(one, path) for one in dracut.kernels() for path in dracut.all_images(one)] if choice.every else []
    if todo or (choice.every and choice.included):
        return todo
    return [(release, path) for path in dracut.require_images(release)]


def _has_agent(path: Path) -> bool:
    with image.unpacked(path, everything=False) as content:
        return content.has_agent


def _remake(
    config: Config,
    now: Record,
    ours: Mapping[str, str],
    kernel: str,
    path: Path,
    options: Sequence[str],
    say: Callable[[str], None],
) -> bool:
    """Rebuild one image, or look into a unified one. False when that is not as it has to be."""
    if not dracut.is_unified(path):
        for line in _rebuild(config, now, ours, kernel, path.resolve(), options):
            say(f"{path}: {line}")
        return True
    problems = _unified(path, now, ours)
    for problem in problems:
        say(f"{path}: {problem}")
    if problems:
        say(f"{path}: was not rebuilt: cryptpilot does not make such images; run: {image.remake_command(path, kernel)}")
    return not problems


def _unified(path: Path, now: Record, ours: Mapping[str, str]) -> list[str]:
    """Say what is wrong with a unified kernel image, or that it cannot be known."""
    try:
        with image.unpacked(path, everything=True) as content:
            return [problem.what for problem in problems_of(content, now, ours)]
    except Interrupted:
        raise
    except CryptpilotError as error:
        return [error.what]


def _rebuild(
    config: Config, now: Record, ours: Mapping[str, str], kernel: str, old: Path, options: Sequence[str]
) -> list[str]:
    new = old.with_name(old.name + _SUFFIX)
    with lock.alone(old):
        _remove_leftover(new, old)
        before = _summary(old)
        _require_room(old, before)
        try:
            with (
                log.timed("make-image", kernel),
                workplace.private_directory(before.unpacked if before else 0, in_memory=False) as directory,
            ):
                dracut.make_image(new, kernel, options, directory)
            with suppress(PermissionError):  # vfat has no modes but those it is mounted with
                new.chmod(0o600)
            with log.timed("check-image", kernel):
                after, warnings = _checked(new, config, now, ours)
            dracut.replace(old, new)
        except Interrupted:
            raise
        except CryptpilotError as error:
            raise CryptpilotError(
                f"{old} was not rebuilt, and is as it was: {error.what}",
                error.hint or f"see all that dracut says: dracut --verbose try.img {kernel}",
            ) from None
        except OSError as error:
            raise CryptpilotError(f"{old} was not rebuilt, and is as it was: {error}") from None
        finally:
            new.unlink(missing_ok=True)
    return [*_what_changed(before, after), *warnings]


def _remove_leftover(new: Path, old: Path) -> None:
    """Remove what a killed rebuild left: it would take the room of this one.

    Raises CryptpilotError when it cannot be removed, or nothing can be made there.
    """
    if not workplace.is_writable(old.parent):
        raise CryptpilotError(
            f"{old} was not rebuilt: {old.parent} is mounted read-only",
            f"mount -o remount,rw {workplace.mount_point(old.parent)}",
        )
    try:
        new.unlink(missing_ok=True)
    except OSError as error:
        raise CryptpilotError(
            f"{old} was not rebuilt: {new}, which an earlier rebuild left, cannot be removed: {error.strerror}",
            "remove it, then run this again",
        ) from None


def _require_room(old: Path, before: _Summary | None) -> None:
    """Raise CryptpilotError when an image of this size, with what cryptpilot adds, does not fit beside the old one."""
    needed = old.stat().st_size + _MARGIN
    if before is None or "cryptpilot" not in before.modules:
        needed += sum(path.stat().st_size for path in paths.BUNDLE.rglob("*") if path.is_file()) // 2
    left = workplace.room(old.parent)
    if left < needed:
        raise CryptpilotError(
            f"{old} was not rebuilt: the new one is made beside it, which takes {readable(needed)}, and"
            f" {old.parent} has {readable(left)} left",
            "remove the images of kernels you do not boot any more",
        )


def _checked(new: Path, config: Config, now: Record, ours: Mapping[str, str]) -> tuple[_Summary, list[str]]:
    """Return the content of a new image, and warnings about faults that the old image must have had too.

    Raises CryptpilotError when the image is not whole.
    """
    with image.unpacked(new, everything=True) as content:
        problems = list(problems_of(content, now, ours))
        if problems:
            raise CryptpilotError(
                f"in the new image {'; '.join(one.what for one in problems)}", remedy.of_new_image(problems)
            )
        warnings = [
            f"warning: {one.what}; {one.hint.replace(REBUILD, 'run this again')}" for one in late(content, config)
        ]
        return _summarized(content, new), warnings


@dataclasses.dataclass(frozen=True)
class _Summary:
    """What is worth comparing of two images. modules: dracut's. size, unpacked: in bytes, of it and of its content."""

    record: Record | None
    modules: set[str]
    size: int
    unpacked: int


def _summary(path: Path) -> _Summary | None:
    """Look at an image that may be damaged; None if it is."""
    try:
        with image.unpacked(path, everything=True) as content:
            return _summarized(content, path)
    except Interrupted:
        raise
    except CryptpilotError:
        return None


def _summarized(content: UnpackedImage, path: Path) -> _Summary:
    unpacked = sum(one.lstat().st_size for one in content.tree.rglob("*"))
    return _Summary(content.record, image.dracut_modules(content.tree), path.stat().st_size, unpacked)


def _what_changed(before: _Summary | None, after: _Summary) -> list[str]:
    """Return what a new image has and the old one lacks, and the other way round."""
    if before is None:
        return [f"rebuilt ({readable(after.size)}); the old image could not be read"]
    lines = []
    old, new = before.record, after.record
    if old and new:
        if old.agent != new.agent:
            other = old.version != new.version
            lines.append(f"cryptpilot {old.version} -> {new.version}" if other else "another build of cryptpilot")
        lines += record.since(old, new).configuration
    for what, had, has in (
        ("volumes", set(old.volumes) if old else set(), set(new.volumes) if new else set()),
        ("dracut modules", before.modules, after.modules),
    ):
        for names, said in ((has - had, "now in it"), (had - has, "no longer in it")):
            lines += [f"{said}: {what} {', '.join(sorted(names))}"] if names else []
    sizes = f"{readable(before.size)} -> {readable(after.size)}"
    return [*lines, f"rebuilt and checked ({sizes})" + ("" if lines else "; nothing of cryptpilot's has changed")]

"""`cryptpilot initrd check`: finds out before a reboot whether an image would do its work."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.boot.plan import initrd_volumes
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import CryptpilotError, DeviceError, Interrupted
from cryptpilot_boot.images import device_names, findings, image, kernel_modules, record, remedy
from cryptpilot_boot.images.remedy import REBUILD, Finding
from cryptpilot_boot.system import dracut, init, kernel_parameters, luks_header, udev

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptpilot_boot.config import Config
    from cryptpilot_boot.images.image import UnpackedImage
    from cryptpilot_boot.images.record import Record

Say = Callable[[str], None]
Explain = Callable[[CryptpilotError, str], None]
"""Tells what went wrong (first argument) with what (second)."""


def check(config: Config, path: Path | None, kernel: str | None, say: Say, explain: Explain) -> bool:
    """Check that an image is whole, runs, and is made from the configuration and the agent of this machine.

    path: the image; without one, those of a kernel, by default of the one that runs. True when all is well.
    """
    now = required(config)
    if path and not path.is_file():
        raise CryptpilotError(f"{path}: no such image", "see which there are: cryptpilot initrd status")
    release = kernel or (_kernel_of(path) if path else "") or dracut.running_kernel()
    ours = identities(config)
    good = True
    for one in [path] if path else dracut.require_images(release):
        with log.timed("check-image", str(one)), image.unpacked(one, everything=True) as content:
            problems = [*problems_of(content, now, ours), *late(content, config)]
            well = _well(content)
        for problem in problems:
            explain(CryptpilotError(problem.what, image.next_step(problem.hint, one, release)), str(one))
        if not problems:
            say(f"{one}: {well}")
        good = good and not problems
    return good


def required(config: Config) -> Record:
    """Return what images have to be made from. Raises CryptpilotError if they cannot be read or compared."""
    dracut.require_usable()
    if config.directory != DEFAULT_DIRECTORY:
        raise CryptpilotError(
            f"images are made from {DEFAULT_DIRECTORY}, and not from {config.directory}", "leave out --config-dir"
        )
    return record.make(config)


def _kernel_of(path: Path) -> str:
    """Return the kernel that an image is installed for, "" if it is for none."""
    return next(
        (kernel for kernel in dracut.kernels() if path.resolve() in map(Path.resolve, dracut.all_images(kernel))), ""
    )


def identities(config: Config) -> dict[str, str]:
    """Return the names of all volumes that are there and are initialized, by the UUIDs of their LUKS2 headers."""
    found = {}
    for volume in config.volumes:
        with suppress(DeviceError):
            found[luks_header.uuid(volume.dev)] = volume.volume
    return {uuid: name for uuid, name in found.items() if uuid}


def problems_of(content: UnpackedImage, now: Record, ours: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what keeps an image from opening what it should; hints as of `findings`. Raises Interrupted.

    ours: as of `identities`.
    """
    yield from findings.claimed(content.tree, ours)
    if content.has_agent:
        yield from findings.findings(content)
        for change in record.since(content.record, now).all:
            yield Finding(f"it is stale: {change}", REBUILD)
    elif now.volumes and not image.is_for_crash_dump(content.tree):
        what = f"cryptpilot is not in it, and would not open {', '.join(now.volumes)}"
        yield Finding(what, remedy.agent_missing())


def late(content: UnpackedImage, config: Config) -> Iterator[Finding]:
    """Yield which volumes an image would open late, not finding their devices or a network; hints as of findings."""
    if content.has_agent:
        volumes = initrd_volumes(config)
        yield from kernel_modules.drivers_missing(content.tree, kernel_modules.drivers_needed(volumes))
        opened = {one.volume for one in volumes}
        words = {*kernel_parameters.words(init.kernel_command_line()), *image.kernel_parameters(content.tree)}
        modules = image.dracut_modules(content.tree)
        yield from device_names.missing(device_names.known(volumes), content.tree, modules, opened, words)


def late_warnings(config: Config) -> list[str]:
    """Return a warning for each volume that an image of the running kernel would open late.

    Images are unpacked only for devices that they may not know: what distributions name themselves they do. Returns
    nothing where `stale` returns nothing.
    """
    if config.directory != DEFAULT_DIRECTORY or not dracut.is_usable():
        return []
    if not device_names.need_an_image(device_names.known(initrd_volumes(config)), udev.rules(Path("/"))):
        return []
    said = []
    running = dracut.running_kernel()
    for path in dracut.all_images(running):
        with suppress(FileNotFoundError):
            said += _late_warnings(config, path, running)
    return said


def _late_warnings(config: Config, path: Path, kernel: str) -> list[str]:
    try:
        with image.unpacked(path, everything=True) as content:
            return [f"{path}: {one.what}; {image.next_step(one.hint, path, kernel)}" for one in late(content, config)]
    except Interrupted:
        raise
    except CryptpilotError as error:
        return [f"{path}: the devices of its volumes cannot be checked: {error.what}; {error.hint}"]


def _well(content: UnpackedImage) -> str:
    if not content.has_agent and image.is_for_crash_dump(content.tree):
        return "ok: cryptpilot is not in it, and the crash kernel needs none"
    if not content.has_agent or not content.record:
        return "ok: cryptpilot is not in it, and no volume is configured to be opened in the initrd"
    opens = ", ".join(f"{name} ({provider})" for name, provider in content.record.volumes.items())
    return f"ok: cryptpilot {content.record.version} is whole, runs in it, and opens {opens}"


def stale(config: Config) -> list[str]:
    """Return a warning for each image of the running kernel that is not made from what is configured now.

    Images are unpacked only when something was changed after they were made, and then even if no volume is for the
    initrd: there may have been one when they were made, which they open still. Returns nothing without dracut, without
    an image, or for a configuration from which no images are made.
    """
    if config.directory != DEFAULT_DIRECTORY or not dracut.is_usable():
        return []
    said = []
    running = dracut.running_kernel()
    for path in dracut.all_images(running):
        with suppress(OSError):  # only root may look
            if record.changed(config) > path.stat().st_mtime:
                said += _outdated(config, path, running)
    return said


def _outdated(config: Config, path: Path, kernel: str) -> list[str]:
    try:
        with image.unpacked(path, everything=False) as content:
            now = record.make(config)
            reasons = record.since(content.record, now).all if content.has_agent else ()
            if not content.has_agent and now.volumes:
                reasons = ("cryptpilot is not in it",)
    except Interrupted:
        raise
    except CryptpilotError as error:
        return [f"{path}: changes since it was made cannot be checked: {error.what}; {error.hint}"]
    return [f"{path} is stale: {reason}; run: {image.remake_command(path, kernel)}" for reason in reasons]

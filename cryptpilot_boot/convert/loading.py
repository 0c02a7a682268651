"""The boot loader of a system: what it reads is read, and changed as was decided."""

from __future__ import annotations

import dataclasses
import filecmp
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import bls, bootloader, mending
from cryptpilot_boot.convert.facts import Kernel, Loader
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import dracut, foreign_tools
from cryptpilot_boot.system.foreign_root import data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.bootloader import Change
    from cryptpilot_boot.system.foreign_root import Root


def kernels(root: Root) -> tuple[Kernel, ...]:
    """Return the kernels that are installed in a root, with their initrds, oldest first."""
    texts = [root.text(path) for path in (dracut.ENTRY_TOKEN, dracut.MACHINE_ID, dracut.OS_RELEASE)]
    unified = [name for directory in dracut.UNIFIED_DIRECTORIES for name in root.names(directory, ".efi")]
    return tuple(
        Kernel(
            release,
            tuple(path.lstrip("/") for path in dracut.image_places(release, *texts) if root.is_file(path)),
            unified=any(map(dracut.unified_name(release), unified)),
        )
        for release in dracut.kernels(root.place("/lib/modules"))
    )


def read(root: Root, releases: Sequence[str]) -> Loader:
    """Read what GRUB reads in a root. releases: of the kernels that are installed there."""
    directories = [one.directory for one in bootloader.GRUBS]
    directories += [f"{bootloader.ESP_CONFIGURATIONS}/{name}" for name in root.names(bootloader.ESP_CONFIGURATIONS)]
    entries = {f"{bls.DIRECTORY}/{name}": "" for name in root.names(bls.DIRECTORY, ".conf")}
    entries = {path: root.text(path) for path in entries}
    files = {bls.kernel_file(text) for text in entries.values()}
    bare = Loader(
        configurations=_texts(root, [f"{one}/grub.cfg" for one in directories]),
        entries=entries,
        environments=_texts(root, [f"{one}/grubenv" for one in directories]),
        command_line=next(filter(None, map(root.text, bls.COMMAND_LINES)), ""),
        releases={path: _release(root, path, releases) for path in files},
    )
    loaded = {path for known in bls.variables(bare) for text in entries.values() for path in bls.initrds(text, known)}
    return dataclasses.replace(bare, images=frozenset(path for path in loaded if root.is_file(path)))


def _texts(root: Root, paths: Sequence[str]) -> dict[str, str]:
    """Return texts by path, links followed: each once."""
    places = {path: root.place(path) for path in paths if root.is_file(path)}
    return {f"/{place.relative_to(root.path)}": root.text(path) for path, place in places.items()}


def _release(root: Root, path: str, releases: Sequence[str]) -> str:
    """Return the kernel that a file belongs to, "" for none."""
    if not root.is_file(path):
        return ""
    for release in releases:
        for known in dracut.kernel_places(release):
            if root.is_file(known) and _are_same(root.place(path), root.place(known)):
                return release
    return ""


def _are_same(one: Path, other: Path) -> bool:
    return one == other or filecmp.cmp(one, other, shallow=False)


def settings_files(root: Root) -> Sequence[str]:
    """Return the files that grub-mkconfig reads, those that are not there included."""
    more = "/etc/default/grub.d"
    return [bootloader.SETTINGS, *(f"{more}/{name}" for name in root.names(more, ".cfg"))]


def set_root(root: Root, made: Change, volume: Volume) -> None:
    """Have grub-mkconfig take the volume for the root from now on."""
    for path in settings_files(root):
        text = root.text(path)
        if mending.without_gone(text) != text:
            root.rewrite(path, data(mending.without_gone(text)))
    text = mending.grub_settings(volume)
    settings = made.grub.settings
    if made.grub.own:
        root.write(settings, text.encode(), 0o644)
    elif root.has(settings):
        root.rewrite(settings, data(f"{root.text(settings).rstrip()}\n\n{text}"))


def change(root: Root, made: Change, volume: Volume, disk: str, boot: str) -> None:
    """Have GRUB boot from the volume, and check that it does. The root is `furnished`, with initrds that open it.

    disk: the device of all of it; boot: UUID of the file system of /boot, if it moved. Raises CryptpilotError.
    """
    one = made.grub
    for command in made.install:
        root.run([word.replace("{disk}", disk) for word in command])
    for path in made.generated:
        foreign_tools.make_boot_configuration(root, one.mkconfig, path)
    # after mkconfig, which may have written to them
    new = bootloader.mended(made, volume, boot)
    _write(root, made, new)
    for path, block in new.environments.items():
        value = bls.environment(block).get(bls.PARAMETERS)
        if made.reads_entries and value:
            foreign_tools.set_variable(root, one.editenv, path, bls.PARAMETERS, value)
    for path, image in made.copies.items():
        foreign_tools.copy_file(root, image, path)
    wrong = bootloader.faults(read(root, []), volume, made.booting)
    if wrong:
        raise CryptpilotError(
            wrong[0],
            f"see what is in /etc/default/grub, /etc/grub.d and {bls.DIRECTORY} of the image",
        )


def _write(root: Root, made: Change, new: Loader) -> None:
    """Write the corrected texts."""
    old = made.old
    kept = {path: text for path, text in new.configurations.items() if path not in made.generated}
    texts = {**kept, **(new.entries if made.reads_entries else {})}
    before = {**old.configurations, **({} if made.generated else old.entries)}
    for path, text in texts.items():
        if text != before.get(path):
            root.rewrite(path, data(text))
    path, wanted = bls.COMMAND_LINES[0], new.command_line
    now = root.text(path)
    if now and not wanted and made.reads_entries:
        # it is mkconfig's, of /etc/default/grub: without it, kernel-install takes all that the running kernel was given
        root.remove(path)
    elif wanted != now and (now or wanted != old.command_line):
        root.replace(path, data(wanted))

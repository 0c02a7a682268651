"""`cryptpilot generator`: what systemd asks at each boot and each reload, see systemd.generator(7)."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.boot import plan
from cryptpilot_boot.commands import competing
from cryptpilot_boot.config import files
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import block, init, private
from cryptpilot_boot.units import units

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptpilot_boot.config import Config
    from cryptpilot_boot.units.fstab import Entry

_MOUNTS = (".mount", ".automount", ".swap")
_SIMPLER = "these lines of fstab are mounted without a check of the file system, and without their x-systemd options"


def generate(config: Config, normal: Path, early: Path) -> None:
    """Write the units of the volumes that are opened at boot. normal, early: systemd's directories for them.

    What has a name that systemd cannot carry is left out, with a word in the kernel's log. What cannot be written is
    left out too, and all else written; raises CryptpilotError in the end.
    """
    todo = plan.plan(config, "system", init.kernel_command_line())
    opened = [one.volume for one in todo.volumes if block.is_block_device(one.mapper_path)]
    competitors = competing.find(todo.volumes)
    made = units.units(
        todo.volumes,
        init.fstab(),
        opened,
        todo.timeout,
        files.unusable(config),
        competitors,
        ask=todo.ask,
        resolve=init.resolve,
    )
    failed: list[CryptpilotError] = []
    for sentence in made.skipped:
        init.kernel_log(sentence)

    def place(directory: Path, name: str, put: Callable[[Path], object]) -> None:
        path = directory / name
        try:
            private.directory(path.parent, private.PUBLIC_DIRECTORY)
            put(path)
        except OSError as error:
            failed.append(CryptpilotError(f"{path} cannot be written: {error.strerror}"))

    try:
        _make_remote(made.netdev, early)
    except CryptpilotError as error:
        failed.append(error)
        for name, entry in made.netdev.items():
            place(early, name, functools.partial(_write, text=units.mount(entry)))
    for name, text in made.instead.items():
        place(early, name, functools.partial(_write, text=text))
    for name in made.masks:
        place(early, name, _mask)
    for name, target in made.links.items():
        place(normal, name, functools.partial(Path.symlink_to, target=target))
    for name, text in made.files.items():
        place(normal, name, functools.partial(_write, text=text))
    for failure in failed:
        init.kernel_log(failure.what)
    if failed:
        raise failed[0]


def _make_remote(netdev: Mapping[str, Entry], early: Path) -> None:
    """Let systemd make the units of fstab's lines for the early directory.

    Raises CryptpilotError when it cannot, or makes others.
    """
    if not netdev:
        return
    made = early / ".cryptpilot"  # there, because a generator may write nowhere else
    try:
        private.directory(made, private.PUBLIC_DIRECTORY)
        init.generate_mounts("".join(f"{entry.line}\n" for entry in netdev.values()), made)
        found = {path.name: path.read_text(errors="replace") for path in made.iterdir() if path.suffix in _MOUNTS}
        if wrong := units.misread(netdev, found):
            raise CryptpilotError(f"the output of systemd-fstab-generator is not understood: {wrong}", _SIMPLER)
        for file in [path for path in made.rglob("*") if path.is_symlink() or not path.is_dir()]:
            name = file.relative_to(made)
            if not name.parts[0].startswith("local-fs.target."):  # it has reported its opinion of these already
                private.directory((early / name).parent, private.PUBLIC_DIRECTORY)
                file.replace(early / name)
    except OSError as error:
        raise CryptpilotError(f"{early}: remote mounts cannot be made: {error.strerror}", _SIMPLER) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    private.write(path, text, private.PUBLIC_FILE)


def _mask(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/null")

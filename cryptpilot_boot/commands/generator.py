"""`cryptpilot generator`: what systemd asks at each boot and each reload, see systemd.generator(7)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.boot import plan, units
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import block, init

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config


def generate(config: Config, normal: Path, early: Path) -> None:
    """Write the units of the volumes that are opened at boot. normal, early: systemd's directories for them.

    What cannot be written is left out and all else written; raises CryptpilotError in the end.
    """
    todo = plan.plan(config, "system", init.kernel_command_line())
    opened = [one.volume for one in todo.volumes if block.is_block_device(one.mapper_path)]
    made = units.units(todo.volumes, init.fstab(), opened, todo.timeout, _unusable(config), resolve=init.resolve)
    failed: list[CryptpilotError] = []

    def place(directory: Path, name: str, put: Callable[[Path], object]) -> None:
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path)
        except OSError as error:
            failed.append(CryptpilotError(f"{path} cannot be written: {error.strerror}"))

    if made.netdev:
        try:
            init.generate_mounts("\n".join([*made.netdev, ""]), early)
        except CryptpilotError as error:
            failed.append(error)
    for name in made.masks:
        place(early, name, _mask)
    for name, target in made.links.items():
        place(normal, name, functools.partial(Path.symlink_to, target=target))
    for name, text in made.files.items():
        place(normal, name, functools.partial(Path.write_text, data=text))
    if failed:
        raise failed[0]


def _unusable(config: Config) -> set[str]:
    """Return what volumes may be called whose files cannot be used: as their files, which is the custom."""
    files = (config.directory / "volumes").glob("*.toml")
    return {file.stem for file in files} - {one.source.stem for one in config.volumes}


def _mask(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/null")

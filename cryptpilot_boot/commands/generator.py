"""`cryptpilot generator`: what systemd asks at each boot and each reload, see systemd.generator(7)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.boot import parameters, units
from cryptpilot_boot.boot.plan import auto_open
from cryptpilot_boot.system import block, init

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config


def generate(config: Config, normal: Path, early: Path) -> None:
    """Write the units of the volumes that are opened at boot. normal, early: systemd's directories for them."""
    if not parameters.parse(init.kernel_command_line(), initrd=False).on:
        return
    volumes = auto_open(config)
    opened = [one.volume for one in volumes if block.is_block_device(one.mapper_path)]
    made = units.units(volumes, init.fstab(), opened)
    if made.netdev:
        init.generate_mounts("\n".join([*made.netdev, ""]), early)
    for name, text in made.files.items():
        _place(normal, name).write_text(text)
    for name, target in made.links.items():
        _place(normal, name).symlink_to(target)
    for name in made.masks:
        mask = _place(early, name)
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")


def _place(directory: Path, name: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

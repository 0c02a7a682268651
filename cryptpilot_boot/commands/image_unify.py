"""`cryptpilot image unify`: rebuilds the unified kernel image of this machine from what GRUB would start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.commands import image_check
from cryptpilot_boot.convert import bootloader, grub, requirements, unify
from cryptpilot_boot.errors import CryptpilotError, printable
from cryptpilot_boot.measure import stub
from cryptpilot_boot.system import lock
from cryptpilot_boot.system import portable_executable as pe
from cryptpilot_boot.system.foreign_root import Root

if TYPE_CHECKING:
    from cryptpilot_boot.commands.image_check import Explain
    from cryptpilot_boot.config import Config
    from cryptpilot_boot.convert.plan import Unified

ESP = "/boot/efi"


def remake(
    config: Config,
    wanted: Unified,
    say: Callable[[str], None],
    explain: Explain,
    directory: Path = Path("/"),
) -> bool:
    """Rebuild the unified kernel image of a machine; False if its initrd would not work.

    The old one stays as it is until the new one is whole. directory: the root of that machine. Raises CryptpilotError.
    """
    root = Root(directory)
    esp = root.place(ESP)
    unify.require_programs(wanted)
    program = _require_unified(root, esp)
    configuration = root.text(bootloader.DEBIAN.configuration)
    release, _ = unify.entry(configuration)
    _require_root(config, configuration)
    image = root.place(f"/boot/initrd.img-{release}")
    if not image_check.check(config, image, release, say, explain):
        return False
    with lock.alone(program), log.timed("unify", release):
        unify.install(root, configuration, esp, wanted)
    say(f"{program}: starts kernel {release} from now on; a verifier has to expect other values")
    return True


def _require_unified(root: Root, esp: Path) -> Path:
    """Return the program that firmware starts. Raises CryptpilotError if that is not a unified kernel image."""
    if not esp.is_mount():
        raise CryptpilotError(f"{ESP} is not mounted", f"mount the EFI system partition there: mount {ESP}")
    if not root.is_file(requirements.STUB):
        raise CryptpilotError(f"there is no {requirements.STUB}", "install systemd-boot-efi")
    program = unify.place(esp)
    sections = pe.sections(program) if program.is_file() else None
    if stub.LINUX not in [name for name, _ in sections or []]:
        raise CryptpilotError(
            f"{program} is not a unified kernel image",
            "this machine boots by GRUB; convert --uki makes one that does not",
        )
    return program


def _require_root(config: Config, configuration: str) -> None:
    first = grub.kernels(configuration)[0].value("root") or "nothing"
    if first not in [one.mapper_path for one in config.volumes]:
        raise CryptpilotError(
            f"GRUB boots the kernel with the root {printable(first)}, which is not a volume",
            f"see /etc/default/grub.d and {bootloader.DEBIAN.configuration}; then run update-grub",
        )

"""GRUB: what its configuration boots, and how it is installed. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.boot import parameters
from cryptpilot_boot.convert.facts import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import Roles, System

CONFIGURATION = "/boot/grub/grub.cfg"
MKCONFIG = "/usr/sbin/grub-mkconfig"
INSTALL = "/usr/sbin/grub-install"
BIOS, EFI = PLATFORMS = ("i386-pc", "x86_64-efi")
"""What GRUB is made for, as it has it itself."""
BOOT_CODE = 440
"""Bytes at the beginning of a disk that are a boot loader's; UEFI specification, 5.2.1."""
_MARK = b"GRUB "  # what GRUB's boot code says when it fails; grub-core/boot/i386/pc/boot.S
_LINUX = re.compile(r"\s*linux(?:16|efi)?\s+(.*)")
_INITRD = re.compile(r"\s*initrd(?:16|efi)?\s+\S")


@dataclasses.dataclass(frozen=True)
class Linux:
    """What a `linux` command loads. line: what follows it; initrd: whether an initrd is loaded with it."""

    line: str
    initrd: bool

    def value(self, name: str) -> str | None:
        """Return the value of a kernel parameter, None where it is not there."""
        return parameters.values(self.line).get(name)


def kernels(configuration: str) -> list[Linux]:
    """Return what a configuration boots as Linux, in its order."""
    found: list[Linux] = []
    for line in configuration.split("\n"):
        if match := _LINUX.match(line):
            found.append(Linux(match[1], initrd=False))
        elif found and _INITRD.match(line):
            found[-1] = dataclasses.replace(found[-1], initrd=True)
    return found


def wrong_roots(configuration: str, volume: Volume) -> list[str]:
    """Return what entries have as their root that is not the volume, opened by an initrd.

    What has neither a root nor an initrd is a program that has itself loaded as Linux is, such as memtest86+.
    """
    found = [one for one in kernels(configuration) if one.initrd or one.value("root")]
    wrong = [one.value("root") or "nothing" for one in found if one.value("root") != volume.mapper_path]
    bare = [f"{volume.mapper_path} without an initrd" for one in found if not one.initrd]
    return [*wrong, *bare] if found else ["nothing"]


def is_boot_code(code: bytes) -> bool:
    """Tell whether boot code is GRUB's. code: the first `BOOT_CODE` bytes of a disk."""
    return _MARK in code


def places(loaders: Roles) -> dict[str, str]:
    """Return where GRUB is, by platform: what a person calls it."""
    found = {
        BIOS: "the space before the first partition" if loaders.gap else loaders.bios and f"partition {loaders.bios}",
        EFI: loaders.esp and f"partition {loaders.esp}",
    }
    return {platform: place for platform, place in found.items() if place}


def waiting(configuration: str, parameters_of_lvm: Sequence[str]) -> list[str]:
    """Return what kernel parameters are there of those that have an initrd wait for a logical volume."""
    found = kernels(configuration)
    return [name for name in parameters_of_lvm if any(one.value(name) is not None for one in found)]


def install_commands(system: System, loaders: Roles) -> tuple[tuple[str, ...], ...]:
    """Return the commands that have GRUB find a /boot that has moved."""
    if INSTALL not in system.present:
        raise refused(f"/boot is to move, and {system.name} in it has no {INSTALL}")
    commands: list[tuple[str, ...]] = []
    for platform, place in places(loaders).items():
        if f"/usr/lib/grub/{platform}" not in system.present:
            raise refused(
                f"/boot is to move, {place} is for GRUB, and {system.name} in it has no GRUB for {platform}",
                "install it in the image",
            )
        commands += _commands(platform, system)
    return tuple(commands)


def _commands(platform: str, system: System) -> Sequence[tuple[str, ...]]:
    install = ("grub-install", f"--target={platform}")
    if platform == BIOS:
        return [(*install, "{disk}")]
    efi = (*install, "--efi-directory=/boot/efi", "--no-nvram")
    names = {name.lower() for name in system.efi_directories}
    own = [efi] if names - {"boot"} else []
    return [*own, *([(*efi, "--removable")] if "boot" in names else [])]

"""GRUB: what its configuration boots, and how it is installed. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.system import kernel_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import InstalledSystem, Roles

INSTALL = "/usr/sbin/grub-install"
BIOS, EFI = PLATFORMS = ("i386-pc", "x86_64-efi")
"""GRUB's platforms, by GRUB's own names."""
BOOT_CODE = 440
"""Bytes at the beginning of a disk that are a boot loader's; UEFI specification, 5.2.1."""
_MARK = b"GRUB "  # what GRUB's boot code says when it fails; grub-core/boot/i386/pc/boot.S
_LINUX = re.compile(r"\s*linux(?:16|efi)?\s+(.*)")
_INITRD = re.compile(r"\s*initrd(?:16|efi)?\s+\S")
_ROOT = re.compile(r'(?<!\S)root=(?:[^\s"]|"[^"]*")*')
GONE = {
    "rd.lvm.lv": "LVM",
    "rd.lvm.vg": "LVM",
    "resume": "a system that hibernates",
    "resume_offset": "a system that hibernates",
}
"""Kernel parameters that name what a new image lacks, and what makes an initrd wait; dracut.cmdline(7).

It resumes from nothing even if its swap stays, as a file in the root: the host decides which memory image has that
name.
"""
_GONE_WORD = re.compile(rf"(?<![^\s\"'=])(?:{'|'.join(map(re.escape, GONE))})=[^\s\"']*[ \t]?")
_PREFIX = re.compile(r"^([ \t]*set prefix=\(\$\w+\)'?)/boot(/grub2?'?)[ \t]*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Linux:
    """What a `linux` command loads. line: what follows it; initrd: whether an initrd is loaded with it."""

    line: str
    initrd: bool

    def value(self, name: str) -> str | None:
        """Return the value of a kernel parameter, None if it is absent."""
        return kernel_parameters.values(self.line).get(name)

    @property
    def is_system(self) -> bool:
        """Return whether it is a system: a program such as memtest86+ is loaded as Linux is, without any of it."""
        return self.initrd or bool(self.value("root"))


def kernels(configuration: str) -> list[Linux]:
    """Return what a configuration boots as Linux, in its order."""
    found: list[Linux] = []
    for line in configuration.split("\n"):
        if match := _LINUX.match(line):
            found.append(Linux(match[1], initrd=False))
        elif found and _INITRD.match(line):
            found[-1] = dataclasses.replace(found[-1], initrd=True)
    return found


def wrong(found: Sequence[Linux], volume: Volume) -> list[str]:
    """Return what is the root of a system that is booted, and not the volume, opened by an initrd."""
    systems = [one for one in found if one.is_system]
    others = [one.value("root") or "nothing" for one in systems if one.value("root") != volume.mapper_path]
    bare = [f"{volume.mapper_path} without an initrd" for one in systems if not one.initrd]
    return [*others, *bare] if systems else ["nothing"]


def command_line(text: str, volume: Volume) -> str:
    """Return kernel parameters with the volume as the root, and without `GONE`; every other word stays as it is."""
    return _ROOT.sub(lambda _: f"root={volume.mapper_path}", without_gone(text))


def without_gone(text: str) -> str:
    """Return kernel parameters without those that make an initrd wait for what a new image lacks."""
    return _GONE_WORD.sub("", text)


def led_to(configuration: str, old: str, new: str) -> str | None:
    """Return a configuration that leads on, for a /boot that has moved out of the root; None if its form is unknown.

    old: UUID of the root's file system; new: of that of /boot. Source: gen_grub_cfgstub, and %post of grub2-common, in
    GRUB's package of Fedora and Enterprise Linux; grub-install.c as Debian has it.
    """
    made, count = _PREFIX.subn(r"\1\2", configuration.replace(old, new)) if old else ("", 0)
    return made if count == 1 and new in made and "/boot/" not in made else None


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


def install_commands(system: InstalledSystem, loaders: Roles, program: str = INSTALL) -> tuple[tuple[str, ...], ...]:
    """Return the commands that have GRUB find a /boot that has moved. program: that installs it."""
    if program not in system.present:
        raise refused(f"/boot has to move, and {system.name} in it has no {program}")
    commands: list[tuple[str, ...]] = []
    for platform, place in places(loaders).items():
        if f"/usr/lib/grub/{platform}" not in system.present:
            raise refused(
                f"/boot has to move, {place} is for GRUB, and {system.name} in it has no GRUB for {platform}",
                "install it in the image",
            )
        commands += _commands(platform, system, program.rpartition("/")[2])
    return tuple(commands)


def _commands(platform: str, system: InstalledSystem, program: str) -> Sequence[tuple[str, ...]]:
    install = (program, f"--target={platform}")
    if platform == BIOS:
        return [(*install, "{disk}")]
    efi = (*install, "--efi-directory=/boot/efi", "--no-nvram")
    names = {name.lower() for name in system.efi_directories}
    own = [efi] if names - {"boot"} else []
    return [*own, *([(*efi, "--removable")] if "boot" in names else [])]

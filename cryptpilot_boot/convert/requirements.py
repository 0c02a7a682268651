"""What a system, a volume and its room have to be, for an image to be converted. Pure.

It is an allow list: everything else is refused, and the error names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import bootloader, grub, labels
from cryptpilot_boot.convert.facts import refused
from cryptpilot_boot.convert.layout import BOOT_ROOM
from cryptpilot_boot.errors import printable
from cryptpilot_boot.providers import table
from cryptpilot_boot.system.block import readable
from cryptpilot_boot.system.partition_table import GPT

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.convert.facts import InstalledDisk, InstalledSystem, Roles

DRACUT = "/usr/bin/dracut"
CRYPTSETUP = "/usr/sbin/cryptsetup"
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
"""What starts a kernel with its initrd and command line: systemd-stub(7)."""
SYSTEMCTL = "/usr/bin/systemctl"
DRACUT_NETWORK = "/usr/lib/dracut/modules.d/40network"
# What a system must have, and what to do if it lacks it; a given package can bring it.
_PACKAGED = {
    DRACUT: "give its package (--package), or install it there: an initrd of initramfs-tools cannot have cryptpilot",
    CRYPTSETUP: "give the package of cryptsetup (--package), or install it there",
}
_NETWORK = {DRACUT_NETWORK: "give the package of dracut-network (--package), or install it there"}
_NEEDED = {SYSTEMCTL: "only systems with systemd are supported"}
# What a system may not have: its boot is another than the one that is known here.
_UNKNOWN = {
    "/etc/kernel/install.conf": "kernel-install's layouts are not supported",
}
CRYPTPILOT = "/usr/bin/cryptpilot"
LOOKED_FOR = (
    *(*_PACKAGED, *_NEEDED, *_UNKNOWN, *bootloader.LOOKED_FOR, DRACUT_NETWORK, STUB, labels.SETFILES, CRYPTPILOT),
    *(f"/usr/lib/grub/{platform}" for platform in grub.PLATFORMS),
)
PLAIN_DIRECTORIES = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var")
"""What is mounted on, or written below: links there would lead elsewhere."""

ROOT_ROOM = 96 << 20  # bytes that the root has to have left: for cryptpilot, and for what dracut unpacks
_UNPACKED = 6  # times a package's bytes that its files take, at most, and its manager's notes
_KERNEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]{0,127}")


def packaged(volume: Volume) -> dict[str, str]:
    """Return what a system must have that a package can bring, and what to do if it lacks it."""
    return {**_PACKAGED, **(_NETWORK if volume.needs_network else {})}


def require_machine(there: str | None, here: str) -> None:
    """Raise CryptpilotError for a system of other processors, as `programs.machine` has them.

    there: those of its programs, None where none was found. here: those of this cryptpilot, which is put into it.
    """
    if there not in (None, here):
        raise refused(
            f"the system in it is for {there or 'an unknown machine'}, and this machine and its cryptpilot are {here}",
            f"convert it on a machine that is {there or 'of its kind'}",
        )


def require_system(system: InstalledSystem, volume: Volume, *, packages: bool) -> None:
    """Raise CryptpilotError for a system whose boot is not known. packages: whether some are installed in it first."""
    for path, hint in {**_NEEDED, **({} if packages else packaged(volume))}.items():
        if path not in system.present:
            raise refused(f"{system.name} in it has no {path}", hint)
    for path, hint in _UNKNOWN.items():
        if path in system.present:
            raise refused(f"{system.name} in it has {path}", hint)
    for path in PLAIN_DIRECTORIES:
        if path not in system.plain:
            raise refused(f"{path} in it is not a directory")
    labels.require(system)
    if not system.kernels:
        raise refused("no kernel is installed in it")
    for kernel in system.kernels:
        if not _KERNEL_NAME.fullmatch(kernel.release):
            raise refused(f"/lib/modules in it has {printable(kernel.release)}, which is not the name of a kernel")
        if len(kernel.images) != 1 or kernel.unified:
            has = "a unified kernel image" if kernel.unified else f"{len(kernel.images) or 'no'} initrd images"
            raise refused(
                f"kernel {kernel.release} in it has {has}", "exactly one for each kernel, made by dracut, is supported"
            )
    if re.search(r"^[^#]*\b(root|rootflags)=", system.loader_settings, re.MULTILINE):
        raise refused("/etc/default/grub in it sets root= for the kernel by itself", "remove that first")


def require_unified(found: InstalledDisk, loaders: Roles) -> None:
    """Raise CryptpilotError where a unified kernel image cannot be made, started or measured."""
    system = found.system
    if found.table.label != GPT:
        raise refused("it has an MBR, for which measurements are not supported", "give the image a GPT")
    if bootloader.chosen(system) is not bootloader.DEBIAN:
        raise refused("a unified kernel image is supported for GRUB as Debian has it", "convert it without --uki")
    if loaders.esp is None:
        raise refused("it has no EFI system partition, which a unified kernel image is started from")
    if STUB not in system.present:
        raise refused(f"{system.name} in it has no {STUB}", "install systemd-boot-efi in it")


def require_volume(volume: Volume, found: InstalledDisk) -> None:
    """Raise CryptpilotError for a volume that cannot hold the root of what was found."""
    kind = found.contents[found.system.root].kind
    if volume.temporary:
        raise refused(
            f"volume {volume.volume} is temporary: its key is lost at the end", "a root needs another provider"
        )
    if table.is_on_device(volume.encrypt):
        raise refused(
            f"the key of volume {volume.volume} is sealed to a TPM, which must have started the new system first",
            "convert it with another provider, boot it, and then add the TPM: see docs/tpm2.md",
        )
    if not volume.auto_open or not volume.initrd:
        raise refused(
            f"{volume.source} does not have the initrd open the volume",
            "set auto_open = true, and remove initrd = false",
        )
    if volume.makefs not in (None, kind):
        raise refused(
            f'the root is {kind}, and {volume.source} says makefs = "{volume.makefs}"', f'set makefs = "{kind}"'
        )
    if volume.identity:
        raise refused(
            f"volume {volume.volume} is bound to a disk already ({volume.identity.source})",
            "give the image a volume, or a configuration directory, of its own",
        )


def require_root_room(found: InstalledDisk, *, moved: bool, packages: int) -> None:
    """Raise CryptpilotError where the root has no room.

    moved: whether what is in /boot leaves it. packages: bytes of those that are installed in it first.
    """
    system = found.system
    left = system.free + (system.boot_used if moved else 0)
    needed = ROOT_ROOM + _UNPACKED * packages
    if left < needed:
        raise refused(
            f"the root's file system has {readable(left)} left, and cryptpilot and dracut need {readable(needed)}",
            "make room in the image",
        )


def require_boot_room(found: InstalledDisk, more: int) -> None:
    """Raise CryptpilotError where /boot has no room for its initrds. more: how many beside those of the kernels."""
    system, needed = found.system, BOOT_ROOM * (len(found.system.kernels) + more)
    if system.boot_free < needed:
        raise refused(
            f"/boot has {readable(system.boot_free)} left, and its initrds need {readable(needed)}",
            "remove old kernels from the image, or enlarge its /boot",
        )

"""A unified kernel image for a new system: of the kernel, initrd and command line that its boot loader would take."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from typing import TYPE_CHECKING

from cryptpilot_boot.convert import grub, requirements
from cryptpilot_boot.convert.plan import Unified
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.measure.unified import LOADER
from cryptpilot_boot.system import foreign_tools, private, programs, workplace
from cryptpilot_boot.system import portable_executable as pe
from cryptpilot_boot.system.block import readable

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.system.foreign_root import Root

_KERNEL = re.compile(r"(?:/boot)?/vmlinuz-([A-Za-z0-9._+~-]+)")
_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@%+~-]+")
_NEW = ".cryptpilot-new"
_SPARE = 1 << 20  # bytes that are left on the EFI system partition


def require_programs(wanted: Unified) -> None:
    """Raise CryptpilotError where this machine has not what it takes to make one."""
    needed = {"objcopy": "binutils", "objdump": "binutils", **({"sbsign": "sbsigntool"} if wanted.key else {})}
    for program, package in needed.items():
        if not programs.is_there(program):
            raise CryptpilotError(f"a unified kernel image needs {program}, which is missing", f"install {package}")
    for path in (wanted.key, wanted.certificate):
        if path and not path.is_file():
            raise CryptpilotError(f"{path}: no such file")


def entry(configuration: str) -> tuple[str, str]:
    """Return the release of the kernel that GRUB starts by default, and its command line. configuration: GRUB's.

    Raises CryptpilotError for a command line that GRUB would change before it gives it to the kernel.
    """
    first = next(iter(grub.kernels(configuration)), None)
    image, *words = (first.line.split() if first else []) or [""]
    kernel = _KERNEL.fullmatch(image)
    if kernel is None or not words:
        raise CryptpilotError("GRUB's configuration names no kernel as Debian does", "see /boot/grub/grub.cfg in it")
    odd = [word for word in words if not _PLAIN.fullmatch(word)]
    if odd:
        raise CryptpilotError(
            f"the kernel command line in it has {shlex.quote(odd[0])}, which GRUB may change", "see /etc/default/grub"
        )
    return kernel[1], " ".join(words)


def install(root: Root, configuration: str, esp: Path, wanted: Unified) -> None:
    """Put a unified kernel image in place of the program that firmware starts of an EFI system partition.

    configuration: GRUB's, by which the kernel, its initrd and its command line are chosen; esp: where it is mounted.
    Raises CryptpilotError.
    """
    release, line = entry(configuration)
    kernel, image = (root.place(f"/boot/{name}-{release}") for name in ("vmlinuz", "initrd.img"))
    for path in (kernel, image):
        if not path.is_file():
            raise CryptpilotError(f"GRUB's configuration names {path}, which is not there", "run update-grub")
    # twice, for the signed one; the initrd can hold a client key
    needed = 2 * (kernel.stat().st_size + image.stat().st_size)
    with workplace.private_directory(needed, in_memory=True) as work:
        for name, text in (("cmdline", line), ("uname", release)):
            private.write(work / name, text)
        parts = (
            (".osrel", root.place("/etc/os-release")),
            (".cmdline", work / "cmdline"),
            (".uname", work / "uname"),
            (".initrd", image),
            (".linux", kernel),
        )
        program = work / "unified.efi"
        pe.add_sections(root.place(requirements.STUB), parts, program)
        if wanted.key and wanted.certificate:
            pe.sign(program, wanted.key, wanted.certificate, work / "signed.efi")
            program = work / "signed.efi"
        _replace(program, place(esp), esp)


def place(esp: Path) -> Path:
    """Return where a program goes; directories that are there are taken in whichever case they are written."""
    here = esp
    for part in LOADER.strip("/").split("/"):
        same = [one for one in here.iterdir() if one.name.lower() == part.lower()] if here.is_dir() else []
        here = same[0] if same else here / part
    return here


def _replace(program: Path, target: Path, esp: Path) -> None:
    """Put a program in place of another one, which is there until all of the new one is on the disk."""
    new = target.with_name(f"{target.name}{_NEW}")
    try:
        new.unlink(missing_ok=True)  # of one that was killed
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(program, esp)
        try:
            with program.open("rb") as source, new.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CryptpilotError(
            f"{target} cannot be replaced: {error.strerror}",
            "the old one is as it was; see whether that can be written to, and what the kernel says of it (dmesg)",
        ) from None
    foreign_tools.flush(esp)


def _require_room(program: Path, esp: Path) -> None:
    needed, left = program.stat().st_size + _SPARE, workplace.room(esp)
    if left < needed:
        raise CryptpilotError(
            f"the EFI system partition has {readable(left)} left, and a unified kernel image needs {readable(needed)}",
            "enlarge it: it holds the old one and the new one for a moment",
        )

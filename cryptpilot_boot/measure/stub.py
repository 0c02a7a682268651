"""How systemd-stub changes a unified kernel image before it starts the kernel. Pure.

What differs between releases stands in `STUBS`, and what differs between kernels in `KERNELS`: only those that were
booted and compared, see tests/boot/test_measure.py. Source: systemd, src/boot/stub.c, cpio.c, uki.c; Linux,
drivers/firmware/efi/libstub; Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LINUX, OSREL, CMDLINE, INITRD, UNAME, SBAT, MAGIC = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"),
    ".sdmagic",
)
CODE = frozenset({".text", ".rodata", ".data", ".reloc", ".dynamic", ".rela", ".dynsym"})
"""Sections that are the stub itself."""


@dataclasses.dataclass(frozen=True)
class Stub:
    """A release of systemd-stub.

    measured: sections that it measures, in that order. strips_front: whether blanks before the command line go.
    adds_release: whether it puts the image's os-release into the initrd. confidential: whether it measures into TDX's
    registers, None if unknown.
    """

    measured: tuple[str, ...]
    strips_front: bool
    adds_release: bool
    confidential: bool | None


STUBS: Mapping[int, Stub] = {
    252: Stub((LINUX, OSREL, CMDLINE, INITRD), strips_front=False, adds_release=False, confidential=None),
    257: Stub((LINUX, OSREL, CMDLINE, INITRD, UNAME, SBAT), strips_front=True, adds_release=True, confidential=True),
}
"""By version."""

KERNELS: Mapping[str, bool] = {"6.1": False, "6.12": True}
"""Series of kernels that measure their command line and initrd into PCR 9; whether into TDX's registers too (6.9)."""

_MAGIC = re.compile(rb"#### LoaderInfo: systemd-stub (\d+)[^ ]* ####\0*")
_VERSION_AT = 0x20E  # kernel_version: where, after 0x200, the text is
_SETUP_MAGIC = (0x202, b"HdrS")
_SERIES = re.compile(r"(\d+\.\d+)\.\S+")
_BLANKS = "".join(map(chr, range(33)))


def version(magic: bytes) -> int | None:
    """Return the version of systemd-stub, as the section says that programs find it by; None for anything else."""
    found = _MAGIC.fullmatch(magic)
    return int(found[1]) if found else None


def kernel_release(linux: bytes) -> str:
    """Return the release of an x86 kernel, "" for anything else. linux: its first 32 KiB, or all of it."""
    where, magic = _SETUP_MAGIC
    if linux[where : where + len(magic)] != magic:
        return ""
    (offset,) = struct.unpack_from("<H", linux, _VERSION_AT)
    text = linux[offset + 0x200 :][:256].split(b"\0", 1)[0]
    words = text.decode("ascii", "replace").split()
    return words[0] if offset and words else ""


def series(release: str) -> str:
    """Return "6.1" for "6.1.0-56-cloud-amd64"; "" for what is no release."""
    found = _SERIES.fullmatch(release)
    return found[1] if found else ""


def load_options(cmdline: bytes, stub: Stub) -> bytes | None:
    """Return the command line that the kernel gets; None if unknown: empty, or not ASCII."""
    text = cmdline.split(b"\0", 1)[0]
    if not text.isascii():
        return None
    line = "".join(" " if ord(one) < 32 else one for one in text.decode()).rstrip(_BLANKS)
    line = line.lstrip(_BLANKS) if stub.strips_front else line
    return f"{line}\0".encode("utf-16-le") if line.strip(_BLANKS) else None


def initrd(sections: Mapping[str, bytes], stub: Stub) -> bytes:
    """Return what the kernel is given as its initrd."""
    base = sections[INITRD]
    if not (stub.adds_release and OSREL in sections):
        return base
    return base + bytes(-len(base) % 4) + archive(".extra/os-release", sections[OSREL])


def archive(name: str, data: bytes) -> bytes:
    """Return the cpio archive with one file in one directory as systemd-stub makes it."""
    directory, _, _ = name.partition("/")
    return (
        _entry(1, 0o40555, directory)
        + _entry(2, 0o100444, name, data)
        # the letter of its length is a capital one, there only
        + _entry(0, 0, "TRAILER!!!").replace(b"0000000b", b"0000000B")
    )


def _entry(inode: int, mode: int, name: str, data: bytes = b"") -> bytes:
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

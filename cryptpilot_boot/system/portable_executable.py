"""UEFI programs: what sections they have, and the digest by which firmware knows them.

Uses: objdump, objcopy (binutils), pesign, sbsign (sbsigntool). Source: PE format; Windows Authenticode Portable
Executable Signature Format.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SECTION = re.compile(r"\s*\d+ (\S+)\s+([0-9a-f]{8,16})  [0-9a-f]{8,16}  [0-9a-f]{8,16}  [0-9a-f]{8}  2\*\*\d+.*")
# where the header is, and in it the optional header, the checksum, and by kind (PE32, PE32+) the certificate table
_HEADER_AT = 0x3C
_OPTIONAL = 24
_CHECKSUM = 64
_DIRECTORY = {0x10B: 128, 0x20B: 144}
_LINE = re.compile(r"\s*\d+ ")
_PLACE = re.compile(r"\s*\d+ \S+\s+([0-9a-f]{8,16})  ([0-9a-f]{8,16}) ")
_PAGE = 4096
_KIND = re.compile(r".*:\s+file format (pei-x86-64|pei-i386)\s*")


def sections(path: Path) -> list[tuple[str, int]] | None:
    """Return the names and sizes, in bytes, of a program's sections, in its order; None for what is no program."""
    try:
        _, text = run(["objdump", "--section-headers", "--wide", str(path)])
    except ProgramError as error:
        if error.hint:  # it could not even be run
            raise
        return None
    return parse_sections(text)


def parse_sections(text: str) -> list[tuple[str, int]] | None:
    """Read what `objdump --section-headers --wide` says; None where it says so of something else."""
    lines = text.splitlines()
    if not any(_KIND.fullmatch(line) for line in lines):
        return None
    found = [_SECTION.fullmatch(line) for line in lines if _LINE.match(line)]
    if None in found:
        raise CryptpilotError(
            "the UEFI program has a section whose name cannot be read", "see: objdump --section-headers FILE"
        )
    return [(one[1], int(one[2], 16)) for one in found if one]


def add_sections(path: Path, parts: Sequence[tuple[str, Path]], target: Path) -> None:
    """Write a program with more sections to a new file. parts: their names, and files with their content."""
    _, text = run(["objdump", "--section-headers", "--wide", str(path)])
    places = [_PLACE.match(line) for line in text.splitlines()]
    end = max((int(found[1], 16) + int(found[2], 16) for found in places if found), default=0)
    if not end:
        raise CryptpilotError(f"{path.name} is not a UEFI program")
    words = []
    for name, content in parts:
        end = -(-end // _PAGE) * _PAGE
        words += ["--add-section", f"{name}={content}", "--change-section-vma", f"{name}={end:#x}"]
        end += content.stat().st_size
    run(["objcopy", *words, str(path), str(target)])


def sign(path: Path, key: Path, certificate: Path, target: Path) -> None:
    """Write a program with a signature to a new file. key, certificate: PEM. Raises ProgramError."""
    run(["sbsign", "--key", str(key), "--cert", str(certificate), "--output", str(target), str(path)])


def extract(path: Path, name: str, size: int, target: Path) -> None:
    """Write a section to a new file. size: what it has to have. Raises CryptpilotError when it has another."""
    run(["objcopy", "--output-target=binary", f"--only-section={name}", str(path), str(target)])
    got = target.stat().st_size
    if got != size:
        raise CryptpilotError(f"section {name}: objcopy wrote {got} bytes, and it has {size}", "please report this")


def authenticode(path: Path) -> dict[str, str]:
    """Return the Authenticode digests of a program, in hexadecimal: by "sha256" and "sha384".

    Signatures are no part of them. pesign knows only the first; the second is of the same bytes, which is proven by the
    first. path: without a digest in it. Raises CryptpilotError for a program whose parts are in an unusual order.
    """
    _, text = run(["pesign", "--hash", f"--in={path}"])
    digests = {bank: hashlib.new(bank) for bank in ("sha256", "sha384")}
    parts = _signed(path.read_bytes())
    for digest in digests.values():
        for part in parts:
            digest.update(part)
    values = {bank: digest.hexdigest() for bank, digest in digests.items()}
    if values["sha256"] != parse_digest(text):
        raise CryptpilotError("the UEFI program has its parts in an unknown order", "see: pesign --hash")
    return values


def parse_digest(text: str) -> str:
    """Read what `pesign --hash` says: releases differ in what else they say."""
    found = re.findall(r"\b[0-9a-f]{64}\b", text)
    if len(found) != 1:
        raise CryptpilotError("pesign gave no digest", "see: pesign --hash --in=FILE")
    return str(found[0])


def _signed(data: bytes) -> list[bytes]:
    """Return the bytes that a signature covers: all but the checksum, the signatures, and where these are."""
    try:
        (header,) = struct.unpack_from("<I", data, _HEADER_AT)
        optional = header + _OPTIONAL
        directory = optional + _DIRECTORY[struct.unpack_from("<H", data, optional)[0]]
        start, size = struct.unpack_from("<II", data, directory)
    except (struct.error, KeyError):
        raise CryptpilotError("the UEFI program has a header that cannot be read") from None
    checksum = optional + _CHECKSUM
    end = start if size else len(data)
    return [data[:checksum], data[checksum + 4 : directory], data[directory + 8 : end]]
